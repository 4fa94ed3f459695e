"""The options of a training run, and the settings of each training strategy.

Each option is written here once: its default, its limits and its help text. The command line (finetune.py) is built
from these fields, and the same rules hold from Python and from the command line.
"""

from __future__ import annotations

import functools
import math
import numbers
import types
import typing
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from teachcam.errors import TrainingError
from teachcam.train.augment.cpu import KINDS
from teachcam.train.model.backbones import DROPOUT, HEADS, INPUT_SIZE, SMALL_CNN

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "step", "none")
BUDGET = 240.0  # seconds that the strategy `auto` may take


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

    def check(self, value: object) -> None:
        """Raise TrainingError if `value` is not allowed. None, which means "not set", always is."""
        if value is None:
            return
        expected = {int: numbers.Integral, float: numbers.Real}.get(self.type, self.type)
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


def _option(group: str, help: str, **more: object) -> dict[str, object]:
    """Return the metadata of a dataclass field that is an option; `more` are further fields of Option."""
    return {"group": group, "help": help, **more}


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


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. Learning rates are the highest that the schedule reaches.

    Fields without a help text belong to a strategy, and users can't set them.

    Raises:
        TrainingError: A setting is outside its limits.
    """

    epochs: int = field(metadata=_option("training", "passes over the training images", low=1, high=100_000))
    lr: float = field(
        metadata=_option("training", "learning rate of the head; of all layers in full and scratch", above=0)
    )
    backbone_lr: float = field(
        default=0.0,
        metadata=_option("training", "learning rate of the backbone; 0 leaves its weights as they are", low=0),
    )
    trainable_fraction: float = field(
        default=0.0,
        metadata=_option(
            "training",
            "fraction of the backbone's layers to train, counted from the head",
            flag="--unfreeze",
            metavar="FRACTION",
            low=0,
            high=1,
        ),
    )
    head_first: bool = False  # train the head alone before the other layers
    gradual: bool = False  # unfreeze one layer after another, the last first (ULMFiT 2018)
    scratch: bool = False  # the backbone has random weights, so its batch norm must learn its statistics
    optimizer: str = field(default="adamw", metadata=_option("training", "optimizer", choices=OPTIMIZERS))
    weight_decay: float = field(default=0.02, metadata=_option("training", "weight decay", low=0, high=10))
    schedule: str = field(
        default="one-cycle",
        metadata=_option(
            "training",
            "how the learning rate changes; step: to a tenth after each third of the epochs",
            choices=SCHEDULES,
        ),
    )
    batch_size: int = field(
        default=32, metadata=_option("training", "images per training step", metavar="N", low=1, high=100_000)
    )
    patience: int | None = field(
        default=None,
        metadata=_option(
            "training",
            "stop after this many epochs without a lower validation loss",
            metavar="EPOCHS",
            low=1,
            high=100_000,
        ),
    )
    dropout: float = field(
        default=DROPOUT,
        metadata=_option("network", "dropout rate, before a linear head or inside an mlp head", low=0, high=0.95),
    )
    progressive_resize: tuple[float, ...] = field(
        default=(1.0,),
        metadata=_option(
            "training",
            "train at these fractions of --image-size, one after another: small images are faster; 1 is the full size",
            metavar="FRACTION",
            low=0.1,
            high=1,
        ),
    )
    stop_after: int | None = None  # end after this many epochs, although the schedule spans all `epochs`
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        for option in options_of(TrainConfig):
            option.check(getattr(self, option.name))

    @property
    def num_epochs(self) -> int:
        """The epochs that are run: `epochs`, or `stop_after` if that is set."""
        return self.stop_after or self.epochs


PROGRESSIVE_SIZES = (160 / 224, 192 / 224, 1.0, 1.0)  # the first epochs cost half as much and teach as much
STRATEGIES = {
    # the backbone stays as it is, so each image runs through it once
    "head": TrainConfig(epochs=30, lr=1e-3, weight_decay=1.0, schedule="none", batch_size=64, dropout=0.0),
    # the first layers detect edges and textures, and keep their ImageNet weights
    "partial": TrainConfig(
        epochs=8,
        lr=3e-3,
        backbone_lr=5e-4,
        trainable_fraction=0.72,
        head_first=True,
        progressive_resize=PROGRESSIVE_SIZES,
    ),
    # lower learning rate in the backbone than in the head (discriminative rates, ULMFiT 2018)
    "differential": TrainConfig(
        epochs=8,
        lr=3e-3,
        backbone_lr=3e-4,
        trainable_fraction=1.0,
        head_first=True,
        progressive_resize=PROGRESSIVE_SIZES,
    ),
    "full": TrainConfig(
        epochs=8, lr=5e-4, backbone_lr=5e-4, trainable_fraction=1.0, progressive_resize=PROGRESSIVE_SIZES
    ),
    "gradual": TrainConfig(epochs=8, lr=3e-3, backbone_lr=3e-4, trainable_fraction=1.0, head_first=True, gradual=True),
    "scratch": TrainConfig(epochs=30, lr=1e-3, backbone_lr=1e-3, trainable_fraction=1.0, scratch=True),
}
AUTO_STRATEGIES = ("head", "partial")  # cheapest first; in new rooms, no other strategy was better than these
ONE_RATE_STRATEGIES = ("full", "scratch")  # where `lr` is the learning rate of the backbone too


@dataclass(frozen=True)
class RunConfig:
    """What to train, on which images, and where to write the run.

    `overrides` replaces settings of the strategy: `RunConfig(strategy="full", overrides={"epochs": 10})`. Its keys are
    the fields of TrainConfig that have a help text. Paths may be given as strings.

    Raises:
        TrainingError: An option is outside its limits, or contradicts another.
    """

    data: Path = field(
        default=Path("data"),
        metadata=_option("data", "dataset folder, which holds one folder per label", metavar="DIR"),
    )
    labels: tuple[str, ...] = field(default=(), metadata=_option("data", "use only these labels", metavar="LABEL"))
    train_list: Path | None = field(
        default=None,
        metadata=_option(
            "data", "train on the files in this list only; each line is a path and a class id", metavar="FILE"
        ),
    )
    test_list: Path | None = field(
        default=None, metadata=_option("data", "with --train-list: the files to test on after training", metavar="FILE")
    )
    split: str = field(
        default="session",
        metadata=_option(
            "data",
            "validate on whole sessions, or on random images, whose accuracy is too optimistic",
            choices=("session", "frames"),
        ),
    )
    validation_fraction: float = field(
        default=0.2,
        metadata=_option(
            "data", "fraction of the images for validation", flag="--validation", metavar="FRACTION", low=0.01, high=0.9
        ),
    )
    folds: int | None = field(
        default=None,
        metadata=_option(
            "data", "cross-validate over K parts of the sessions: K trainings", metavar="K", low=2, high=100_000
        ),
    )
    test: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "data",
            "sessions for a final test, or a fraction; training and validation never see them",
            metavar="SESSION",
        ),
    )
    refit: bool = field(
        default=True,
        metadata=_option("data", "do not train once more on all images after validation", flag="--no-refit"),
    )
    image_size: int | None = field(
        default=None,
        metadata=_option(
            "data", f"width and height of the model's input ({INPUT_SIZE[0]})", metavar="PIXELS", low=16, high=1024
        ),
    )
    grayscale: bool = field(
        default=False, metadata=_option("data", "remove all color from images, in training and live")
    )
    augment: str = field(
        default="room",
        metadata=_option(
            "data", "random changes of training images: as in another room, slight, or none", choices=KINDS
        ),
    )
    backbone: str = field(
        default="squeezenet1_1",
        metadata=_option(
            "network",
            f"squeezenet1_1, alexnet, resnet18, another torchvision classifier, or {SMALL_CNN}",
            metavar="NAME",
        ),
    )
    weights: str = field(
        default="imagenet",
        metadata=_option("network", "initial weights: imagenet, none (random), or a file with a state dict"),
    )
    head: str = field(
        default="linear",
        metadata=_option("network", "layers after the backbone; mlp is linear, ReLU, dropout, linear", choices=HEADS),
    )
    strategy: str = field(
        default="auto",
        metadata=_option(
            "training",
            f"which layers to train, and how; auto tries {', then '.join(AUTO_STRATEGIES)}, and keeps the better",
            choices=("auto", *STRATEGIES),
        ),
    )
    overrides: dict = field(default_factory=dict)
    budget: float = field(
        default=BUDGET, metadata=_option("training", "time that auto may take", metavar="SECONDS", above=0)
    )
    out: Path | None = field(default=None, metadata=_option("run", "folder of the run (runs/<time>)", metavar="DIR"))
    device: str = field(
        default="auto",
        metadata=_option("run", "where to train; auto is the GPU if there is one", choices=("auto", "cpu", "cuda")),
    )
    seed: int = field(default=0, metadata=_option("run", "seed of all random numbers", low=0, high=2**32 - 1))

    def __post_init__(self) -> None:
        """Convert values to the fields' types, settle what follows from other options, and check all."""
        for option in options_of(RunConfig):
            value = getattr(self, option.name)
            if option.many:
                value = (value,) if isinstance(value, str) else tuple(value)
            if option.type is Path and isinstance(value, str):
                value = Path(value)
            option.check(value)
            object.__setattr__(self, option.name, value)
        self._check_combinations()
        overrides = {name: value for name, value in self.overrides.items() if value is not None}
        if "progressive_resize" in overrides:
            overrides["progressive_resize"] = tuple(overrides["progressive_resize"])
        if self.strategy in ONE_RATE_STRATEGIES and "lr" in overrides:
            overrides.setdefault("backbone_lr", overrides["lr"])
        if unknown := sorted(overrides.keys() - {option.name for option in options_of(TrainConfig)}):
            raise TrainingError(f"overrides: there is no setting {unknown[0]!r}")
        for strategy in AUTO_STRATEGIES if self.strategy == "auto" else (self.strategy,):
            replace(STRATEGIES[strategy], **overrides)  # checks the values
        object.__setattr__(self, "overrides", overrides)
        if self.strategy == "scratch":
            object.__setattr__(self, "weights", "none")

    def _check_combinations(self) -> None:
        """Raise TrainingError for options that contradict each other."""
        if self.folds and self.split == "frames":
            raise TrainingError("--folds: cross-validation is over sessions; leave --split frames out")
        if self.test_list and not self.train_list:
            raise TrainingError("--test-list: give --train-list too")
        if self.test_list and self.test:
            raise TrainingError("--test-list: the list is the test; leave --test out")
        if self.train_list and self.labels:
            raise TrainingError("--labels: the list of --train-list has its own labels; leave --labels out")

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return (self.image_size, self.image_size) if self.image_size else INPUT_SIZE

    def to_json(self) -> dict:
        """Return plain values for JSON; `from_json` makes an equal RunConfig of them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict) -> RunConfig:
        """Return the RunConfig that `to_json` described. Raises TypeError or TrainingError for anything else."""
        return cls(**values)
