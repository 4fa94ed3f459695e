"""The settings of one training."""

from __future__ import annotations

from dataclasses import dataclass

from teachcam.train.config.options import option_field, options_of
from teachcam.train.model.backbones import DROPOUT

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "step", "none")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. Learning rates are the highest that the schedule reaches.

    Fields without a help text belong to a strategy, and users can't set them.

    Raises:
        TrainingError: A setting is outside its limits.
    """

    epochs: int = option_field("training", "passes over the training images", low=1, high=100_000)
    lr: float = option_field("training", "learning rate of the head; of all layers in full and scratch", above=0)
    backbone_lr: float = option_field(
        "training", "learning rate of the backbone; 0 leaves its weights as they are", default=0.0, low=0
    )
    trainable_fraction: float = option_field(
        "training",
        "fraction of the backbone's layers to train, counted from the head, with a --backbone-lr above 0",
        default=0.0,
        flag="--unfreeze",
        metavar="FRACTION",
        low=0,
        high=1,
    )
    head_first: bool = False  # train the head alone before the other layers
    gradual: bool = False  # unfreeze one layer after another, the last first (ULMFiT 2018)
    scratch: bool = False  # the backbone has random weights, so its batch norm must learn its statistics
    averaged: bool = True  # take the running average of the weights
    max_gradient_norm: float = 1.0
    optimizer: str = option_field("training", "how weights are updated", default="adamw", choices=OPTIMIZERS)
    weight_decay: float = option_field(
        "training", "how strongly large weights are pulled to 0", default=0.02, low=0, high=10
    )
    schedule: str = option_field(
        "training",
        "how the learning rate changes; step: to a tenth after each third of the epochs",
        default="one-cycle",
        choices=SCHEDULES,
    )
    batch_size: int = option_field("training", "images per training step", default=32, metavar="N", low=1, high=100_000)
    patience: int | None = option_field(
        "training",
        "stop after this many epochs without a lower validation loss",
        default=None,
        metavar="EPOCHS",
        low=1,
        high=100_000,
    )
    dropout: float = option_field(
        "network", "dropout rate, before a linear head or inside an mlp head", default=DROPOUT, low=0, high=0.95
    )
    progressive_resize: tuple[float, ...] = option_field(
        "training",
        "train at these fractions of --image-size, one after another: small images are faster; 1 is the full size",
        default=(1.0,),
        metavar="FRACTION",
        low=0.1,
        high=1,
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
