"""Make batches of augmented images, with their targets and their weights in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.gpu import GpuAugmentation
from teachcam.train.augment.params import AugmentParams
from teachcam.train.engine.distributed import ProcessGroup
from teachcam.train.engine.loop import Batch
from teachcam.train.engine.loss import batch_targets, class_weights

IMAGES_PER_OUTLIER = 8


def fill_batch(rows: np.ndarray, size: int, device: torch.device) -> np.ndarray:
    """Return a batch with its rows repeated up to `size` if the device is a GPU, and else the batch as it is.

    cuDNN plans every layer anew for each number of rows that it has not seen.

    Args:
        rows: [N, ...], at most `size` of them.
        size: how many rows a full batch has.
        device: that the batch will run on.
    """
    return np.resize(rows, (size, *rows.shape[1:])) if device.type == "cuda" else rows


@dataclass(frozen=True)
class BatchLoader:
    """Makes the batches of one epoch.

    A batch depends only on the seed, the epoch and its number, so that any thread can make it at any time.
    """

    augmentation: Augmentation
    class_ids: torch.Tensor  # int64 [N], of the augmentation's images
    contract: Contract  # with the input size of this epoch
    seed: int
    epoch: int
    processes: ProcessGroup
    gpu_augmentation: GpuAugmentation | None  # None: augment on the CPU

    def load(self, numbered_batch: tuple[int, torch.Tensor]) -> tuple[Batch, list[AugmentParams]]:
        """Make this process's part of a batch.

        Args:
            numbered_batch: Number of the batch in the epoch, and the indices of its images, int64 [n].

        Returns:
            The batch, whose inputs are uint8 [n, H, W, 3]; and if a GPU is to make them, how, while they are empty.
        """
        number, indices = numbered_batch
        num_outliers = len(indices) // IMAGES_PER_OUTLIER if self.augmentation.has_outliers else 0
        label_weights = class_weights(self.class_ids, len(self.contract.labels))
        targets, weights = batch_targets(self.class_ids[indices], label_weights, num_outliers)
        rows = list(self.processes.shard(range(len(targets))))
        if not rows:  # more processes than images: this one computes an image of weight 0, to stay in step
            rows, weights = [0], torch.zeros(1)
        params = [self._sample_params(indices, number, row) for row in rows]
        images = torch.empty(0)
        if self.gpu_augmentation is None:
            images = torch.from_numpy(
                np.stack([preprocess(self.augmentation.apply(one), self.contract) for one in params])
            )
        return Batch(images, targets[rows], weights[rows], len(indices)), params

    def to_device(self, made: tuple[Batch, list[AugmentParams]], device: torch.device) -> Batch:
        """Move a batch that was loaded to the device; augment there if there is a GPU augmentation."""
        batch, params = made
        inputs = batch.inputs
        if self.gpu_augmentation is not None:
            inputs = self.gpu_augmentation(params, self.contract.input_size)
        return Batch(inputs.to(device), batch.targets.to(device), batch.weights.to(device), batch.num_images)

    def _sample_params(self, indices: torch.Tensor, number: int, row: int) -> AugmentParams:
        rng = np.random.default_rng((self.seed, 1 + self.epoch, number, row))
        if row < len(indices):
            return self.augmentation.sample(int(indices[row]), rng)
        return self.augmentation.sample_outlier(rng)


def derive_seed(*key: int) -> int:
    """Return a seed derived from numbers, such as the run's seed and the epoch. The same numbers give the same seed."""
    return int(np.random.default_rng(key).integers(2**63))
