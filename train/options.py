"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from train.backbones import INPUT_SIZE
from train.strategies import BUDGET


@dataclass(frozen=True)
class Options:
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
    greyscale: bool = False
    strategy: str = "auto"
    augment: str = "room"
    changes: dict = field(default_factory=dict)  # settings in place of the strategy's own
    budget: float = BUDGET  # seconds, for `auto`
    split: str = "session"  # or frames
    held_out: float = 0.2  # of the frames
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
    def from_json(cls, values: dict) -> Options:
        """Read what `to_json` returned."""
        paths = {name: Path(values[name]) for name in ("data", "out", "train_list", "test_list") if values[name]}
        return cls(**{**values, **paths, "labels": tuple(values["labels"]), "test": tuple(values["test"])})
