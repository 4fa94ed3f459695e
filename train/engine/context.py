"""What a training runs with: the device, the processes that share it, who is told, and where it can go on from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from typing import TypeVar

import torch

from teachcam.train.engine.distributed import Workers
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import Progress
from teachcam.train.engine.resume import TrainingState

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Context:
    """Nobody else, and nothing kept, unless said."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: Workers = field(default_factory=Workers)
    progress: Progress = field(default_factory=Progress)
    journal: TrainingState = field(default_factory=TrainingState)
    memory: MicroBatcher = field(default_factory=MicroBatcher)
    frames: int = 0  # that went through a network to learn from
    seconds: float = 0.0  # that took
    waited: float = 0.0  # of those, for frames to be ready

    def ahead(self, items: Iterable[T], make: Callable[[T], R]) -> Iterator[R]:
        """Yield what `make` makes of each item, in order; the next ones are made while one is used.

        On the CPU the network needs the cores itself, so one thread makes them; a GPU is fed by as many as there are.
        """
        threads = 1 if self.device.type == "cpu" else min(16, cpu_count() or 1)
        items = iter(items)
        with ThreadPoolExecutor(threads) as pool:
            coming: deque = deque()
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) <= threads:
                    continue
                yield self._wait(coming.popleft())
            while coming:
                yield self._wait(coming.popleft())

    def count(self, frames: int, began: float) -> None:
        """Count frames that were learned from since `began`, of time.monotonic()."""
        self.frames += frames
        self.seconds += time.monotonic() - began

    def _wait(self, future) -> R:
        began = time.perf_counter()
        result = future.result()
        self.waited += time.perf_counter() - began
        return result
