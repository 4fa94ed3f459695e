"""Optimizers and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import lr_scheduler

from teachcam.train.config.train_config import TrainConfig

MOMENTUM = 0.9  # of SGD; the usual value for fine-tuning
WARM_UP = 0.2  # fraction of the steps in which the rate of a one-cycle schedule rises


def make_optimizer(
    groups: list[tuple[Iterable[nn.Parameter], float]], config: TrainConfig, num_images: int
) -> tuple[torch.optim.Optimizer, lr_scheduler.LRScheduler]:
    """Return the optimizer and the schedule of its learning rates, which advances with every step.

    Args:
        groups: Parameters, each group with its highest learning rate.
        config: Settings of the training.
        num_images: Number of training images per epoch.
    """
    groups = [(list(parameters), lr) for parameters, lr in groups]
    param_groups = [{"params": parameters, "lr": lr} for parameters, lr in groups]
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(param_groups, momentum=MOMENTUM, weight_decay=config.weight_decay)
    else:
        adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = adam(param_groups, weight_decay=config.weight_decay)
    steps = config.epochs * math.ceil(num_images / config.batch_size)
    if config.schedule == "one-cycle":
        rates, steps = [lr for _, lr in groups], max(2, steps)
        # OneCycleLR divides by the number of steps of the warm-up less one. Of 5 steps, a fifth would be 1.
        warm_up = WARM_UP if WARM_UP * steps != 1 else 2 / steps
        return optimizer, lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=warm_up)
    if config.schedule == "cosine":
        return optimizer, lr_scheduler.CosineAnnealingLR(optimizer, steps)
    third = max(1, steps // 3) if config.schedule == "step" else steps + 1  # StepLR divides the rate by 10
    return optimizer, lr_scheduler.StepLR(optimizer, third)
