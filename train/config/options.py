"""Options as dataclass fields: each has its default, its limits and its help text in one place.

The command line is built from them (finetune.py), and `Option.check` holds the same rules for Python.
"""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from dataclasses import MISSING, dataclass, field, fields

from teachcam.errors import TrainingError


@dataclass(frozen=True)
class Option:
    """An option that users may set: how it is called, explained and checked."""

    name: str  # of the field
    type: type  # of one value
    many: bool  # whether it takes several values
    default: object
    group: str  # the heading that it has in --help
    help: str
    flag: str  # on the command line
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    low: float | None = None  # the smallest allowed value
    high: float | None = None  # the largest allowed value
    above: float | None = None  # values must be larger than this

    def check(self, value: typing.Any) -> None:
        """Raise TrainingError if `value` is not allowed. None, which means "not set", is if the default is None."""
        if value is None:
            if self.default in (None, MISSING):
                return
            raise TrainingError(f"{self.flag} must be of type {self.type.__name__}, not None")
        expected: typing.Any = {int: numbers.Integral, float: numbers.Real}.get(self.type, self.type)
        for one in value if self.many else (value,):
            if not isinstance(one, expected) or (isinstance(one, bool) and self.type is not bool):
                raise TrainingError(f"{self.flag} must be of type {self.type.__name__}, not {one!r}")
            if self.choices is not None and one not in self.choices:
                raise TrainingError(f"{self.flag} must be one of {', '.join(self.choices)}, not {one!r}")
            if self.above is not None and not self.above < one < math.inf:
                raise TrainingError(f"{self.flag} must be greater than {self.above:g}, not {one:g}")
            if self.low is not None and not (self.low <= one < math.inf and (self.high is None or one <= self.high)):
                limits = f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:.10g}"
                raise TrainingError(f"{self.flag} must be {limits}, not {one:.10g}")


def option_field(group: str, help: str, default: typing.Any = MISSING, **more: object) -> typing.Any:
    """Return a dataclass field that is an option.

    Args:
        group: The heading that it has in --help.
        help: The line that explains it in --help.
        default: Its default value. Without one, the field has to be given.
        more: Further fields of Option, such as `flag`, `choices` or `low`.
    """
    return field(default=default, metadata={"group": group, "help": help, **more})


@functools.cache
def options_of(config: type) -> tuple[Option, ...]:
    """Return the options among the fields of RunConfig or TrainConfig."""
    hints, options = typing.get_type_hints(config), []
    for own in fields(config):
        if own.metadata:
            hint = hints[own.name]
            if isinstance(hint, types.UnionType):  # T | None
                hint = typing.get_args(hint)[0]
            many = typing.get_origin(hint) is tuple
            value_type = typing.get_args(hint)[0] if many else hint
            metadata = {"flag": f"--{own.name.replace('_', '-')}", **own.metadata}
            options.append(Option(own.name, value_type, many, own.default, **metadata))
    return tuple(options)
