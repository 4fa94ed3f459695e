"""The settings of one training, and those of each training strategy."""

from __future__ import annotations

import math
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
        "fraction of the backbone's layers to train, counted from the head",
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
    optimizer: str = option_field("training", "optimizer", default="adamw", choices=OPTIMIZERS)
    weight_decay: float = option_field("training", "weight decay", default=0.02, low=0, high=10)
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


PROGRESSIVE_SIZES = (160 / 224, 192 / 224, 1.0, 1.0)  # the first epochs cost half as much and teach as much
FINETUNE = "finetune"
STRATEGIES = {
    # the backbone stays as it is, so each image runs through it once
    "head": TrainConfig(
        epochs=30,
        lr=1e-3,
        weight_decay=1.0,
        schedule="none",
        batch_size=64,
        dropout=0.0,
        averaged=False,
        max_gradient_norm=math.inf,
    ),
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
    # begins with the head of `ridge`, and ends with the mean of the weights before and after
    FINETUNE: TrainConfig(epochs=12, lr=1e-3, backbone_lr=1e-3, trainable_fraction=0.55),
}
UNUSED_BY_FINETUNE = ("patience", "progressive_resize")
RIDGE = "ridge"  # a closed-form head: it has no epochs, no learning rate, and none of the settings above
AUTO = "auto"  # ridge, then finetune if that is better
FROM_RIDGE = (AUTO, RIDGE, FINETUNE)  # they judge every image by a model that never saw its scene
NUM_FOLDS = 3  # of finetune
ONE_RATE_STRATEGIES = ("full", "scratch")  # where `lr` is the learning rate of the backbone too
