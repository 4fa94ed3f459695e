"""What a step learns from: frames, what they should be answered, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.gpu import DeviceAugmentation
from teachcam.train.augment.params import AugmentParams
from teachcam.train.engine.distributed import Workers

OUTLIER_WEIGHT = 1.5  # the weight of pictures of no label, of which there is one for every eight frames


@dataclass(frozen=True)
class Batches:
    """Makes the batches of an epoch. Each depends on the seed, the epoch and its place alone, whoever makes it when."""

    augmentation: Augmentation
    class_ids: torch.Tensor  # int64 [N], of the augmentation's frames
    contract: Contract  # with the input size of this epoch
    seed: int
    epoch: int
    workers: Workers
    device: DeviceAugmentation | None  # what shows the frames, if they lie on the device

    def make(
        self, step: tuple[int, torch.Tensor]
    ) -> tuple[torch.Tensor | list[AugmentParams], torch.Tensor, torch.Tensor]:
        """Return this process's share of a batch: frames uint8 [n, H, W, 3], targets [n, labels], each one's weight.

        `step` is a number and indices of frames. Instead of frames it is their plans where they are to be shown on the
        device. After the batch's own come pictures of no label, one for every eight, whose targets are all labels
        alike. The weights are those of the whole batch: summed over all processes they make its loss.
        """
        number, batch = step
        labels, augmentation = len(self.contract.labels), self.augmentation
        nothing = len(batch) // 8 if augmentation.has_outliers else 0
        known = functional.one_hot(self.class_ids[batch], labels).float()
        targets = torch.cat([known, torch.full((nothing, labels), 1 / labels)])
        weights = class_weights(self.class_ids, labels)[self.class_ids[batch]]
        weights = torch.cat([weights / weights.sum(), torch.full((nothing,), OUTLIER_WEIGHT / max(1, nothing))])
        rows = list(self.workers.shard(range(len(targets))))
        if not rows:  # more processes than frames: this one goes along with a frame that counts nothing
            rows, weights = [0], torch.zeros(1)
        plans = []
        for row in rows:
            rng = np.random.default_rng((self.seed, 1 + self.epoch, number, row))
            own = row < len(batch)
            plans.append(augmentation.plan(int(batch[row]), rng) if own else augmentation.sample_outlier(rng))
        if self.device is not None:
            return plans, targets[rows], weights[rows]
        frames = np.stack([preprocess(augmentation.show(plan), self.contract) for plan in plans])
        return torch.from_numpy(frames), targets[rows], weights[rows]

    def put(self, frames: torch.Tensor | list[AugmentParams], device: torch.device) -> torch.Tensor:
        """Return the frames that `make` made, or planned, on the device."""
        if self.device is None:
            return frames.to(device)
        return self.device(frames, self.contract.input_size)


def derive_seed(*key: int) -> int:
    """Return a seed for an epoch, from its number and others: it depends on nothing before it but the weights."""
    return int(np.random.default_rng(key).integers(2**63))


def class_weights(class_ids: torch.Tensor, labels: int) -> torch.Tensor:
    """Return a weight for each label, float32 [labels], by which all count the same in a loss."""
    counts = torch.bincount(class_ids, minlength=labels).clamp(min=1)
    return len(class_ids) / (labels * counts.float())


def balanced_loss(class_ids: torch.Tensor, labels: int) -> Callable[..., torch.Tensor]:
    """Return a cross entropy in which every label counts the same, however many of the `class_ids` are of it."""
    return partial(functional.cross_entropy, weight=class_weights(class_ids, labels))
