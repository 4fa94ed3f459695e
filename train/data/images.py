"""Hold the images of a dataset: in memory up to a limit; beyond it they are decoded when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from teachcam.errors import DatasetError, UnreadableImage
from teachcam.images import read_image
from teachcam.preprocessing import shrink
from teachcam.processor import share_of_memory

# For decoded images: 2 GB are about 9,000, as a network with 224x224 inputs needs them.
MEMORY_SHARE, MAX_BYTES = 0.25, 2**31


class ImageStore(Mapping):
    """The images of files by path, uint8 [H, W, 3] BGR, averaged down close to the input size.

    The first ones stay in memory, up to a quarter of what is free. The others are decoded when they are asked for, by
    any thread.
    """

    def __init__(self, input_size: tuple[int, int]):
        """Begin without images. They stay at least as large as `input_size`, height and width in pixels."""
        self._input_size, self._num_bytes = input_size, 0
        self._max_bytes = share_of_memory(MEMORY_SHARE, MAX_BYTES)
        self._images: dict[Path, np.ndarray | None] = {}  # None: to be decoded

    def add(self, path: Path, image: np.ndarray) -> None:
        """Add the decoded image of a file, uint8 [H, W, 3] BGR."""
        small = shrink(image, self._input_size)
        if keep := self._num_bytes + small.nbytes <= self._max_bytes:
            self._num_bytes += small.nbytes
        self._images[path] = small if keep else None

    def __getitem__(self, path: Path) -> np.ndarray:
        """Return an image. Raises DatasetError if its file can't be read any more."""
        image = self._images[path]
        if image is not None:
            return image
        try:
            return shrink(read_image(path), self._input_size)
        except UnreadableImage as error:
            raise DatasetError(f"{error}; the file was whole before: leave the dataset alone while training") from None

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Path]:
        return iter(self._images)


class StoredImages(Sequence):
    """Images of a store in a row.

    Attributes:
        hashes: Hash of the content of each image's file.
    """

    def __init__(self, store: ImageStore, paths: list[Path], hashes: list[str]):
        """Name the images."""
        self._store, self._paths, self.hashes = store, paths, hashes

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> StoredImages: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | StoredImages:
        """Return one image, or some of them in a row."""
        if isinstance(index, slice):
            return StoredImages(self._store, self._paths[index], self.hashes[index])
        return self._store[self._paths[index]]

    def __add__(self, other: StoredImages) -> StoredImages:
        return StoredImages(self._store, self._paths + other._paths, self.hashes + other.hashes)
