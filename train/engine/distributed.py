"""Train in several processes, one per GPU, as torchrun starts them. Without torchrun there is one process.

    torchrun --nproc-per-node 2 train/finetune.py

Each process computes its part of every batch, and gradients are averaged (DistributedDataParallel). A step is then the
same for any number of processes, except for dropout and, when training from scratch, batch norm. Only the main process
prints and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

from teachcam.errors import TrainingError

T = TypeVar("T")
S = TypeVar("S", list, range, torch.Tensor)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a training, seen from one of them. Every process must make the same calls in the same order."""

    rank: int = 0  # of this process
    count: int = 1

    @property
    def is_main_process(self) -> bool:
        """True for the process that prints and writes."""
        return self.rank == 0

    def shard(self, items: S) -> S:
        """Return this process's part of a list or tensor: every `count`-th item, beginning with item `rank`."""
        return items[self.rank :: self.count]

    def broadcast(self, value: T) -> T:
        """Return the main process's value. Use it for what depends on the clock or on files."""
        if self.count == 1:
            return value
        box: list = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' values."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def gather(self, own: torch.Tensor, total: int) -> torch.Tensor:
        """Return the rows of all processes in their original order: the reverse of `shard`.

        Args:
            own: [n, ...], one row for each item of this process's shard.
            total: Number of items before they were sharded.

        Returns:
            [total, ...].
        """
        if self.count == 1:
            return own
        most = -(-total // self.count)
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])]).contiguous()
        shards = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(shards, padded)
        return torch.stack(shards, 1).flatten(0, 1)[:total]

    def gather_objects(self, own: T) -> list[T]:
        """Return every process's value, in the order of their ranks. Tensors must be on the CPU."""
        if self.count == 1:
            return [own]
        everyone: list = [None] * self.count
        distributed.all_gather_object(everyone, own)
        return everyone

    def wrap_ddp(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the model with gradients averaged over all processes; the model itself if there is only one."""
        if self.count == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


@contextmanager
def init_distributed(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the processes that torchrun started and choose this process's device.

    Args:
        device: Device: auto, cpu or cuda.

    Raises:
        TrainingError: There is no GPU, or fewer GPUs than processes.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give auto or cpu")
    count, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda and local_rank >= torch.cuda.device_count():
        raise TrainingError(
            f"torchrun started more processes than the {torch.cuda.device_count()} GPUs here: "
            "give that number to --nproc-per-node, or give --device cpu"
        )
    own_device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if count == 1:
        yield ProcessGroup(), own_device
        return
    if cuda:
        torch.cuda.set_device(own_device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), count), own_device
    finally:
        distributed.destroy_process_group()
