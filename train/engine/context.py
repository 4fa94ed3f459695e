"""The surroundings of a training: device, processes, progress, saved state and memory limit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import TypeVar

import torch

from teachcam.train.engine.distributed import ProcessGroup
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import Progress
from teachcam.train.engine.resume import TrainingState

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Context:
    """The surroundings of a training. By default: the CPU, one process, no output, and nothing saved."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    progress: Progress = field(default_factory=Progress)
    state: TrainingState = field(default_factory=TrainingState)
    micro_batcher: MicroBatcher = field(default_factory=MicroBatcher)
    feature_store: Path | None = None  # file that keeps features for later runs; None: nothing does
    num_images: int = 0  # passed through a network for training, so far
    train_seconds: float = 0.0  # spent on them
    data_wait_seconds: float = 0.0  # of those, spent waiting for batches

    def prefetch(self, items: Iterable[T], make: Callable[[T], R]) -> Iterator[R]:
        """Yield `make(item)` for each item, in order, and make the next ones in threads meanwhile.

        On a CPU the network needs the cores, so there is one thread. On a GPU there is one for each core, up to 16.
        """
        threads = 1 if self.device.type == "cpu" else min(16, cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            pending: deque[Future[R]] = deque()
            for item in items:
                pending.append(pool.submit(make, item))
                if len(pending) > threads:
                    yield self._wait(pending.popleft())
            while pending:
                yield self._wait(pending.popleft())

    def count_images(self, num_images: int, started: float) -> None:
        """Add images that were used since `started`, a value of time.monotonic()."""
        self.num_images += num_images
        self.train_seconds += time.monotonic() - started

    def _wait(self, future: Future[R]) -> R:
        started = time.perf_counter()
        result = future.result()
        self.data_wait_seconds += time.perf_counter() - started
        return result
