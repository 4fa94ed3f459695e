"""The options of a training run.

Each option is one field, with its default, its limits and its help text. The command line (finetune.py) is built from
these fields, and the same rules hold from Python and from the command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from teachcam.collect.names import normalize_text
from teachcam.errors import TrainingError
from teachcam.files import expand
from teachcam.train.augment.augmentation import KINDS
from teachcam.train.config.options import option_field, options_of
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.strategies import STRATEGIES
from teachcam.train.engine.strategies.base import VALIDATION_FRACTION, Strategy
from teachcam.train.model.backbones import DEFAULT_BACKBONE, HEADS, SMALL_CNN, check_backbone, default_input_size

BUDGET = 240.0  # seconds that the strategy `auto` may take


@dataclass(frozen=True)
class RunConfig:
    """The options of a run: its data, its network, its training, and its folder.

    `overrides` replaces settings of the strategy: `RunConfig(strategy="full", overrides={"epochs": 10})`. Its keys are
    the fields of TrainConfig that have a help text. Paths may be given as strings.

    Raises:
        TrainingError: An option is outside its limits, or contradicts another.
    """

    data: Path = option_field(
        "data", "dataset folder, which holds one folder per label", default=Path("data"), metavar="DIR"
    )
    labels: tuple[str, ...] = option_field("data", "use only these labels", default=(), metavar="LABEL")
    train_list: Path | None = option_field(
        "data", "train on the files in this list only; each line is a path and a class id", default=None, metavar="FILE"
    )
    test_list: Path | None = option_field(
        "data", "with --train-list: the files to test on after training", default=None, metavar="FILE"
    )
    split: str = option_field(
        "data",
        "validate on whole scenes, or on random images, whose accuracy is too optimistic",
        default="scenes",
        choices=("scenes", "frames"),
    )
    validation_fraction: float = option_field(
        "data",
        "fraction of the images for validation",
        default=VALIDATION_FRACTION,
        flag="--validation",
        metavar="FRACTION",
        low=0.01,
        high=0.9,
    )
    folds: int | None = option_field(
        "data",
        "cross-validate over K parts of the scenes: K trainings",
        default=None,
        metavar="K",
        low=2,
        high=100_000,
    )
    test: tuple[str, ...] = option_field(
        "data",
        "scenes for a final test, or a fraction; training and validation never see them",
        default=(),
        metavar="SCENE",
    )
    refit: bool = option_field(
        "data",
        "keep the network that was validated; by default it is trained again on all images",
        default=True,
        flag="--no-refit",
    )
    image_size: int | None = option_field(
        "data",
        "width and height of the model's input (default: 224 for most backbones)",
        default=None,
        metavar="PIXELS",
        low=16,
        high=1024,
    )
    grayscale: bool = option_field("data", "remove all color from images, in training and live", default=False)
    augment: str = option_field(
        "data",
        "random changes of training images; room: imitate other rooms; light: small changes only; none",
        default="room",
        choices=KINDS,
    )
    backbone: str = option_field(
        "network",
        "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, squeezenet1_1, alexnet, resnet18, another "
        f"torchvision classifier, timm:NAME, or {SMALL_CNN}",
        default=DEFAULT_BACKBONE,
        metavar="NAME",
    )
    weights: str = option_field(
        "network", "initial weights: imagenet, none (random), or a file with a state dict", default="imagenet"
    )
    head: str = option_field(
        "network", "layers after the backbone; mlp is linear, ReLU, dropout, linear", default="linear", choices=HEADS
    )
    strategy: str = option_field(
        "training",
        "which layers to train, and how; auto is ridge, then finetune, and keeps the better",
        default="auto",
        choices=tuple(STRATEGIES),
    )
    overrides: dict = field(default_factory=dict)
    budget: float = option_field("training", "time that auto may take", default=BUDGET, metavar="SECONDS", above=0)
    out: Path | None = option_field("run", "folder of the run (default: runs/<time>)", default=None, metavar="DIR")
    device: str = option_field(
        "run", "where to train; auto is the GPU if there is one", default="auto", choices=("auto", "cpu", "cuda")
    )
    seed: int = option_field("run", "seed of all random numbers", default=0, low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        """Convert values to the fields' types, settle what follows from other options, and check all."""
        for option in options_of(RunConfig):
            value = getattr(self, option.name)
            if option.many:
                value = (value,) if isinstance(value, str) else tuple(value)
            if option.type is Path and isinstance(value, (str, Path)):
                value = expand(value)
            if option.name in ("labels", "test"):
                value = tuple(normalize_text(one) if isinstance(one, str) else one for one in value)
            option.check(value)
            object.__setattr__(self, option.name, value)
        if not isinstance(self.overrides, dict):
            raise TrainingError("overrides must be a dict of settings of the strategy")
        check_backbone(self.backbone)
        self._check_combinations()
        overrides = {name: value for name, value in self.overrides.items() if value is not None}
        if "progressive_resize" in overrides:
            overrides["progressive_resize"] = tuple(overrides["progressive_resize"])
        if unknown := sorted(overrides.keys() - {option.name for option in options_of(TrainConfig)}):
            raise TrainingError(f"overrides: there is no setting {unknown[0]!r}")
        object.__setattr__(self, "overrides", overrides)
        object.__setattr__(self, "weights", self.method.weights or self.weights)
        if reason := self.method.refuses(self):
            raise TrainingError(reason)
        self.method.settings_with(overrides, self.seed)  # checks the values

    def _check_combinations(self) -> None:
        """Raise TrainingError for options that contradict each other."""
        if self.folds and self.split == "frames":
            raise TrainingError("--folds: cross-validation is over scenes; leave --split frames out")
        if self.test_list and not self.train_list:
            raise TrainingError("--test-list: give --train-list too")
        if self.test_list and self.test:
            raise TrainingError("--test-list: the list is the test; leave --test out")
        if self.train_list and self.labels:
            raise TrainingError("--labels: the list of --train-list has its own labels; leave --labels out")

    @property
    def method(self) -> Strategy:
        """The strategy."""
        return STRATEGIES[self.strategy]

    @property
    def training(self) -> TrainConfig:
        """The settings of the strategy, with the overrides. It must have some."""
        settings = self.method.settings_with(self.overrides, self.seed)
        assert settings is not None
        return settings

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return (self.image_size, self.image_size) if self.image_size else default_input_size(self.backbone)

    def to_json(self) -> dict:
        """Return plain values for JSON; `from_json` makes an equal RunConfig of them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict) -> RunConfig:
        """Return the RunConfig that `to_json` described. Raises TypeError or TrainingError for anything else."""
        return cls(**values)
