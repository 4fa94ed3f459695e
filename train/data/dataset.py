"""Read a dataset's images once, with the class ids of their labels and their scenes."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.inspection import Measurements
from teachcam.collect.scenes import find_scenes
from teachcam.errors import TrainingError, UnreadableImage
from teachcam.images import decode_file, read_file
from teachcam.train.data.images import ImageStore, StoredImages
from teachcam.train.model.backbones import INPUT_SIZE


@dataclass(frozen=True)
class Examples:
    """Labeled images."""

    images: list[np.ndarray]  # uint8 [H, W, 3], BGR, any size; those of a Dataset are StoredImages, which act like it
    class_ids: torch.Tensor  # int64 [N]
    scenes: list[str]  # the scene of each image
    backgrounds: list[str]  # images of equal names are before exactly the same background

    def __len__(self) -> int:
        return len(self.images)


class Dataset:
    """The images of a dataset folder, averaged down close to the input size.

    Attributes:
        folder: Dataset folder.
        samples: Samples whose images could be read, with their scenes.
        images: Images by path, uint8 [H, W, 3], BGR; in memory, up to a limit (images.py).
        labels: Names of the labels in the order of their class ids.
        skipped: A message for each file that could not be read.
        left_out: Lines about files in the folder that are not used; set by who made the list of samples.
        measurements: Measurements of the full images, for the report's advice.
    """

    def __init__(
        self,
        folder: Path,
        samples: list[Sample] | None = None,
        labels: tuple[str, ...] | None = None,
        input_size: tuple[int, int] = INPUT_SIZE,
    ):
        """Read all images of the folder, or only `samples`.

        Args:
            folder: Dataset folder.
            samples: Samples to read; None for the whole folder.
            labels: Names of the labels in the order of their class ids; None for alphabetical order.
            input_size: Height and width of the network's input in pixels; images stay at least that large.

        Raises:
            DatasetError: if the folder holds no dataset.
            TrainingError: if no image can be read, or there are fewer than two labels.
        """
        self.folder = folder
        self.images = ImageStore(input_size)
        self.skipped: list[str] = []
        self.left_out: list[str] = []
        self.measurements = Measurements()
        self._hashes: dict[Path, str] = {}  # of the files' content
        samples = list_samples(folder) if samples is None else samples
        for sample in tqdm(samples, desc="reading", unit="image", leave=False, disable=None):
            try:
                content = read_file(sample.path)
                image = decode_file(content, sample.path)
            except UnreadableImage as error:
                self.measurements.add(sample, None)
                self.skipped.append(str(error))
                tqdm.write(f"skipped: {error}", file=sys.stderr)
                continue
            self.measurements.add(sample, image)
            self.images.add(sample.path, image)
            self._hashes[sample.path] = hashlib.sha256(content).hexdigest()
        if not self.images:
            raise TrainingError(f"none of the {len(samples)} images in {folder} can be read")
        readable = self.measurements.readable
        scenes = find_scenes(readable, self.measurements.signature_array)
        self.samples, self._background_of = scenes.mark(readable), scenes.background_of
        self.labels = labels or tuple(sorted({sample.label for sample in self.samples}))
        if len(self.labels) < 2:
            raise TrainingError(
                f"only one label, {self.labels[0]}, in {folder}: training needs two or more; choose another label "
                "too, or record one with teachcam capture --label NAME"
            )

    def examples(self, samples: list[Sample]) -> Examples:
        """Return the images of these samples with their class ids, scenes and backgrounds."""
        class_id_of = {label: class_id for class_id, label in enumerate(self.labels)}
        class_ids = torch.tensor([class_id_of[sample.label] for sample in samples], dtype=torch.int64)
        paths = [sample.path for sample in samples]
        images: Any = StoredImages(self.images, paths, [self._hashes[path] for path in paths])
        scenes = [sample.scene for sample in samples]
        return Examples(images, class_ids, scenes, [self._background_of[sample.session] for sample in samples])

    def fingerprint(self) -> str:
        """Return a hash of the labels and the content of all files read. It does not depend on their order or names."""
        lines = sorted(f"{sample.label} {self._hashes[sample.path]}" for sample in self.measurements.readable)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def relative_path(self, sample: Sample) -> str:
        """Return a sample's path relative to the dataset folder, or its absolute path if it lies elsewhere."""
        try:
            return sample.path.relative_to(self.folder).as_posix()
        except ValueError:  # a file list may name files outside the folder
            return str(sample.path.absolute())
