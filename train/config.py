"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from teachcam.train.model.backbones import DROPOUT, INPUT_SIZE

SCHEDULES = ("one-cycle", "cosine", "step", "none")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The rates are the highest that the schedule reaches."""

    epochs: int
    lr: float  # of the head
    backbone_lr: float = 0.0
    trainable_fraction: float = 0.0  # the share of the backbone's layers, counted from the head, that learn too
    head_first: bool = False  # whether the head learns alone before the others begin
    gradual: bool = False  # whether they begin to learn one after another, the last layer first
    scratch: bool = False  # whether the backbone comes untrained: its batch norm then learns its statistics
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    schedule: str = "one-cycle"  # step: a tenth after each third of the epochs
    batch: int = 32
    patience: int | None = None  # stop after so many epochs without a better held-out loss
    dropout: float = DROPOUT  # of the features before a linear head, within an mlp one
    sizes: tuple[float, ...] = (1.0,)  # of the input, in shares, as the epochs go by: small ones are quicker
    stop: int | None = None  # end after so many epochs; the schedule is that of all
    seed: int = 0


GROWING = (160 / 224, 192 / 224, 1.0, 1.0)  # the first epochs at a smaller size cost half, and as much is learned
STRATEGIES = {
    # the backbone stays as it is, so each frame runs through it once
    "head": TrainConfig(epochs=30, lr=1e-3, weight_decay=1.0, schedule="none", batch=64, dropout=0.0),
    # edges and textures stay as ImageNet taught them
    "partial": TrainConfig(
        epochs=8, lr=3e-3, backbone_lr=5e-4, trainable_fraction=0.72, head_first=True, sizes=GROWING
    ),
    "differential": TrainConfig(
        epochs=8, lr=3e-3, backbone_lr=3e-4, trainable_fraction=1.0, head_first=True, sizes=GROWING
    ),
    "full": TrainConfig(epochs=8, lr=5e-4, backbone_lr=5e-4, trainable_fraction=1.0, sizes=GROWING),
    "gradual": TrainConfig(epochs=8, lr=3e-3, backbone_lr=3e-4, trainable_fraction=1.0, head_first=True, gradual=True),
    "scratch": TrainConfig(epochs=30, lr=1e-3, backbone_lr=1e-3, trainable_fraction=1.0, scratch=True),
}
AUTO_STRATEGIES = (
    "head",
    "partial",
)  # what `auto` tries, the cheapest first: in new rooms no other did better than these
BUDGET = 240.0  # seconds, for `auto`


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do."""

    data: Path = Path("data")
    out: Path | None = None  # runs/<time>
    labels: tuple[str, ...] = ()  # these only
    train_list: Path | None = None  # instead of all that is in `data`
    test_list: Path | None = None
    backbone: str = "squeezenet1_1"
    weights: str = "imagenet"
    head: str = "linear"
    size: int | None = None  # pixels, of the input's sides; INPUT_SIZE
    grayscale: bool = False
    strategy: str = "auto"
    augment: str = "room"
    changes: dict = field(default_factory=dict)  # settings in place of the strategy's own
    budget: float = BUDGET  # seconds, for `auto`
    split: str = "session"  # or frames
    validation: float = 0.2  # of the frames
    folds: int | None = None  # cross-validation instead of one split
    test: tuple[str, ...] = ()  # sessions, or a fraction, that nothing is chosen by
    refit: bool = True
    device: str = "auto"
    seed: int = 0

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        return (self.size, self.size) if self.size else INPUT_SIZE

    def to_json(self) -> dict:
        """Return plain values, from which `from_json` makes the same options."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict) -> RunConfig:
        """Read what `to_json` returned."""
        paths = {name: Path(values[name]) for name in ("data", "out", "train_list", "test_list") if values[name]}
        return cls(**{**values, **paths, "labels": tuple(values["labels"]), "test": tuple(values["test"])})
