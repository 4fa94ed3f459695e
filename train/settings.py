"""How to train: rates, schedules, and what of a network learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from train.backbones import DROPOUT

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups, **more: torch.optim.SGD(groups, momentum=0.9, **more),
}
SCHEDULES = ("one-cycle", "cosine", "step", "none")


@dataclass(frozen=True)
class Settings:
    """How to train. The rates are the highest that the schedule reaches."""

    epochs: int
    lr: float  # of the head
    backbone_lr: float = 0.0
    learns: float = 0.0  # the share of the backbone's layers, counted from the head, that learn too
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


def make_optimizer(groups: list, settings: Settings, examples: int):
    """Return the optimizer of (parameters, highest rate) groups, and the schedule of its rates, step by step."""
    groups = [(list(parameters), rate) for parameters, rate in groups]
    make = OPTIMIZERS[settings.optimizer]
    optimizer = make([{"params": part, "lr": rate} for part, rate in groups], weight_decay=settings.weight_decay)
    steps = settings.epochs * math.ceil(examples / settings.batch)
    schedules = torch.optim.lr_scheduler
    if settings.schedule == "one-cycle":
        rates = [rate for _, rate in groups]
        return optimizer, schedules.OneCycleLR(optimizer, rates, total_steps=max(2, steps), pct_start=0.2)
    if settings.schedule == "cosine":
        return optimizer, schedules.CosineAnnealingLR(optimizer, steps)
    third = max(1, steps // 3) if settings.schedule == "step" else steps + 1
    return optimizer, schedules.StepLR(optimizer, third)
