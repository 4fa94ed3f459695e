"""Runs a batch through the network in smaller chunks when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from teachcam.errors import TrainingError

T = TypeVar("T")


class MicroBatcher:
    """Finds how many images fit through a network at once: halves the number each time memory runs out."""

    def __init__(self, say: Callable[[str], None] = lambda _: None, can_split: bool = True):
        """Begin without a limit.

        Args:
            say: Receives the line that memory ran out.
            can_split: Whether batches may be divided. Several processes have to run the same number of chunks.
        """
        self.limit: int | None = None  # images at once; None as long as all fit
        self._say, self._can_split = say, can_split

    def chunks(self, num_images: int) -> list[slice]:
        """Return slices that cover `num_images` images, none longer than the limit."""
        step = min(self.limit or num_images, num_images)
        return [slice(start, start + step) for start in range(0, num_images, step)]

    def run_in_chunks(self, num_images: int, run: Callable[[list[slice]], T]) -> T:
        """Return `run(chunks)`; when memory runs out, halve the chunks and run again from the start.

        Raises:
            TrainingError: Not even one image fits, or batches can't be divided.
        """
        while True:
            try:
                return run(self.chunks(num_images))
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                tried = min(self.limit or num_images, num_images)
            if not self._can_split:
                raise TrainingError(f"out of memory with {tried} images on each device: give a smaller --batch-size")
            if tried == 1:
                raise TrainingError(
                    "out of memory with a single image: give a smaller --image-size or --backbone, or --device cpu"
                )
            self.limit = tried // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._say(f"out of memory with {tried} images at once: continuing with {self.limit}, with the same result")

    def map_chunks(self, run: Callable[[torch.Tensor], T], inputs: torch.Tensor) -> list[T]:
        """Return `run(chunk)` for each chunk of the inputs."""
        return self.run_in_chunks(len(inputs), lambda chunks: [run(inputs[chunk]) for chunk in chunks])


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
