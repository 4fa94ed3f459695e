"""How to train: rates, schedules, and what of a network learns."""

from __future__ import annotations

import math

import torch

from teachcam.train.config import TrainConfig

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups, **more: torch.optim.SGD(groups, momentum=0.9, **more),
}


def make_optimizer(groups: list, settings: TrainConfig, examples: int):
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
