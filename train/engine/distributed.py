"""The processes that train together, as torchrun starts them; just this one where it did not.

    torchrun --nproc-per-node 2 train/finetune.py

Each takes its share of every batch, so that a step is the same step however many share it, but for what dropout leaves
out and, in a training from scratch, for batch norm, which sees a share only. The first (`main`) alone says and writes
anything.
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


@dataclass(frozen=True)
class Workers:
    """This process among `count`."""

    rank: int = 0
    count: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the one that says and writes."""
        return self.rank == 0

    def shard(self, items: T) -> T:
        """Return this process's share of a list or tensor: every `count`-th, from its own on."""
        return items[self.rank :: self.count]

    def broadcast(self, value: T) -> T:
        """Return what the first process has here: what depends on time or a disk must be one thing for all."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' values."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def gather(self, own: torch.Tensor, total: int) -> torch.Tensor:
        """Return the rows of all, [total, ...], of which `own` is what `share` gave this process."""
        if self.count == 1:
            return own
        most = -(-total // self.count)
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:total]

    def wrap_ddp(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return a model whose gradients are the average of all processes'."""
        if self.count == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


@contextmanager
def init_distributed(device: str) -> Iterator[tuple[Workers, torch.device]]:
    """Join the processes that torchrun started, and choose this one's device; `device` is auto, cpu or cuda."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give auto or cpu")
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise TrainingError(
            f"torchrun: there are {torch.cuda.device_count()} GPUs for more processes; "
            "give as many to --nproc-per-node, or --device cpu"
        )
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if count == 1:
        yield Workers(), where
        return
    if cuda:
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Workers(distributed.get_rank(), count), where
    finally:
        distributed.destroy_process_group()
