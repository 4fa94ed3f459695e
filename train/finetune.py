"""Train a classifier on data/<label>/ by transfer learning.

    python train/finetune.py
    python train/finetune.py --backbone resnet18 --strategy full --epochs 10 --out runs/my_run
    python train/finetune.py @train/recipes/malaria.args --data cells
    python train/finetune.py --resume

Writes checkpoint.pt, metrics.json and report.html into the run's folder. runs/latest is a link to the newest run.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("train")

import argparse
import shlex
from pathlib import Path

from teachcam import cli
from teachcam.errors import TrainingError
from teachcam.files import expand
from teachcam.train.config.options import Option, options_of
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.strategies import STRATEGIES
from teachcam.train.run import load_interrupted_run, show_augmentation, train
from teachcam.train.run_config import RunConfig

STRATEGY_DEFAULTS = ", ".join(
    f"{name} {one.settings.epochs} and {one.settings.lr:g}" for name, one in STRATEGIES.items() if one.settings
)
GROUPS = {  # the headings of --help
    "data": None,
    "network": None,
    "training": "Each strategy has its own settings; an option replaces one of them. Defaults of --epochs and --lr: "
    f"{STRATEGY_DEFAULTS}. The others are in train/engine/strategies/.",
    "run": None,
}


def main(argv: list[str] | None = None) -> int:
    """Train, validate and write a run."""
    parser = _build_parser()
    try:
        options = vars(parser.parse_args(argv))
    except UnicodeDecodeError:
        parser.error("@FILE: that is not a text file")
    except RecursionError:
        parser.error("@FILE: the file names itself, or another file that names it")
    run = options.pop("resume")
    if run is not None:
        _refuse_options_with_resume(parser, options)
        train(load_interrupted_run(expand(run) if run else None), resume=True)
        return 0
    preview = options.pop("show_augment")
    overrides = {option.name: options.pop(option.name) for option in options_of(TrainConfig)}
    try:
        config = RunConfig(**options, overrides=overrides)
    except TrainingError as error:
        parser.error(str(error))
    if preview:
        show_augmentation(config, preview)
    else:
        train(config)
    return 0


def _shown(default: object) -> str:
    """Return a default as --help shows it: several values in a row, and no .0."""
    if isinstance(default, tuple):
        return " ".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


class _Parser(cli.Parser):
    """Reads arguments from files too, quoted as in a shell, with # comments."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Split one line of a file of arguments."""
        try:
            return shlex.split(arg_line, comments=True)
        except ValueError as error:
            self.error(f"{arg_line.strip()[:60]!r}: {error}")


def _build_parser() -> argparse.ArgumentParser:
    """Return the parser: the options of RunConfig and TrainConfig, --show-augment and --resume."""
    parser = _Parser(
        description=__doc__.splitlines()[0],
        epilog="@FILE reads arguments from a file; train/recipes has the files of known tutorials",
        fromfile_prefix_chars="@",
    )
    groups = {name: parser.add_argument_group(name, description) for name, description in GROUPS.items()}
    for option in options_of(RunConfig):
        _add_option(groups[option.group], option, option.default)
    for option in options_of(TrainConfig):
        _add_option(groups[option.group], option, None)
    groups["data"].add_argument(
        "--show-augment", type=expand, metavar="FILE", help="write a picture of augmented training images, and stop"
    )
    groups["run"].add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="continue an interrupted run, the newest if none is named"
    )
    return parser


def _add_option(group: argparse._ArgumentGroup, option: Option, default: object) -> None:
    """Add an option to the parser; None as default stands for the strategy's own value."""
    if option.type is bool:
        action = "store_false" if default else "store_true"
        group.add_argument(option.flag, dest=option.name, action=action, help=option.help)
        return
    group.add_argument(
        option.flag,
        dest=option.name,
        type=expand if option.type is Path else option.type,
        nargs="+" if option.many else None,
        default=default,
        choices=option.choices,
        metavar=option.metavar,
        help=option.help if default in (None, ()) else f"{option.help} (default: {_shown(default)})",
    )


def _refuse_options_with_resume(parser: argparse.ArgumentParser, options: dict) -> None:
    """Exit with an error if another option was given with --resume."""
    for action in parser._actions:
        if action.dest in options and options[action.dest] != action.default:
            parser.error(f"--resume continues the run with its own options: leave {action.option_strings[0]} out")
