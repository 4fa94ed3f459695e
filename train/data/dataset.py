"""A dataset in memory: frames, the class ids of their labels, and their sessions."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from teachcam.collect.dataset import Sample, read_items
from teachcam.errors import TrainingError, UnreadableImage
from teachcam.images import read_image
from teachcam.preprocessing import shrink
from teachcam.train.model.backbones import INPUT_SIZE


@dataclass(frozen=True)
class Examples:
    """Frames (uint8 BGR, any size), their class ids (int64 [N]) and their sessions."""

    frames: list[np.ndarray]
    class_ids: torch.Tensor
    sessions: list[str]

    def __len__(self) -> int:
        return len(self.frames)

    def __add__(self, other: Examples) -> Examples:
        return Examples(
            self.frames + other.frames, torch.cat([self.class_ids, other.class_ids]), self.sessions + other.sessions
        )

    def __getitem__(self, part: slice) -> Examples:
        return Examples(self.frames[part], self.class_ids[part], self.sessions[part])


class Dataset:
    """A folder's frames, decoded once, as small as `preprocess` allows; what can't be read is named and left out.

    Raises DatasetError or TrainingError where there is nothing to learn.
    """

    def __init__(
        self,
        folder: Path,
        items: list[Sample] | None = None,
        labels: tuple[str, ...] | None = None,
        size: tuple[int, int] = INPUT_SIZE,
    ):
        """Read what is in the folder, or only these `items` of it; the `labels` are in their alphabet's order."""
        self.folder = folder
        self.frames: dict[Path, np.ndarray] = {}
        self.skipped: list[str] = []
        items = read_items(folder) if items is None else items
        for item in tqdm(items, desc="reading", unit="frame", leave=False, disable=None):
            try:
                self.frames[item.path] = shrink(read_image(item.path), size)
            except UnreadableImage as error:
                self.skipped.append(str(error))
                tqdm.write(f"skipped: {error}", file=sys.stderr)
        if not self.frames:
            raise TrainingError(f"none of the {len(items)} images in {folder} can be read")
        self.items = [item for item in items if item.path in self.frames]
        self.labels = labels or tuple(sorted({item.label for item in self.items}))
        if len(self.labels) < 2:
            raise TrainingError(
                f"only one label to learn, {self.labels[0]}, from {folder}: choose another too, or record it with "
                "python collect/capture.py --label NAME"
            )

    def examples(self, items: list[Sample]) -> Examples:
        """Return the frames of items, with their class ids and sessions."""
        ids = torch.tensor([self.labels.index(item.label) for item in items], dtype=torch.int64)
        return Examples([self.frames[item.path] for item in items], ids, [item.session for item in items])

    def name(self, item: Sample) -> str:
        """Return an item's path as one goes there from the dataset's folder."""
        try:
            return item.path.relative_to(self.folder).as_posix()
        except ValueError:  # a list may name files elsewhere
            return str(item.path.absolute())
