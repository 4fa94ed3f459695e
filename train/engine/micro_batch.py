"""Out of memory: as many frames at once as fit, found out by halving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from teachcam.errors import TrainingError

T = TypeVar("T")


class MicroBatcher:
    """How many frames go through a network at once: as many as asked for, until that is more than memory holds."""

    def __init__(self, say: Callable[[str], None] = lambda _: None, splits: bool = True):
        """`splits` says whether a batch may be split: not where several processes have to go through it in step."""
        self.most: int | None = None
        self._say, self._splits = say, splits

    def parts(self, count: int) -> list[slice]:
        """Return slices of so many frames, none longer than what fits."""
        step = min(self.most or count, count)
        return [slice(start, start + step) for start in range(0, count, step)]

    def within(self, count: int, work: Callable[[list[slice]], T]) -> T:
        """Return what `work` makes of `parts(count)`; where memory runs out, halve them, say so, and try again."""
        while True:
            try:
                return work(self.parts(count))
            except RuntimeError as error:
                if not _ran_out(error):
                    raise
                tried = min(self.most or count, count)
            if not self._splits:
                raise TrainingError(f"out of memory with {tried} frames at once on each device: give a smaller --batch")
            if tried == 1:
                raise TrainingError(
                    "out of memory with one frame: take a smaller --size or --backbone, or --device cpu"
                )
            self.most = tried // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._say(f"out of memory with {tried} frames at once: going on with {self.most}, which learns the same")


def _ran_out(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
