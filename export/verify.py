"""Measure a model file against the model that it was made from, on images of the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Callable, Tuple, TypeVar

import numpy as np

from teachcam.contract import Contract
from teachcam.export.parity import ValidationResult, compare
from teachcam.onnx_session import predict_probabilities

MAX_IMAGES = 200  # to compare a file on, and as many to calibrate int8 on: a few seconds each on two cores
MAX_ACCURACY_DROP = 0.01 + 1e-9  # one percentage point that int8 may lose; 1e-9 allows for rounding
MAX_CHANGED_LABELS = 0.1  # int8 that changes more labels than this is refused, even if as many are right

LabeledImage = Tuple[np.ndarray, str]  # uint8 [H, W, 3], BGR, of any size, and its label
OnProgress = Callable[[str, float], None]  # called with what is done, in plain words, and the part of that, 0 to 1
T = TypeVar("T")


class Validator:
    """Compares model files with the model that they were made from.

    Attributes:
        contract: The model's contract.
        validation: Validation images.
        calibration: Other images, which int8 is calibrated on.
        images: All images that files are compared on, the validation images first.
        on_progress: What `convert` reports its progress to.
    """

    def __init__(
        self,
        contract: Contract,
        predict: Callable[[list[np.ndarray]], np.ndarray],
        validation: list[LabeledImage],
        calibration: list[LabeledImage],
        on_progress: OnProgress | None = None,
    ):
        """Predict the images with the model.

        Args:
            contract: The model's contract.
            predict: The model, in float32. It returns the probabilities of images, float [N, num_classes].
            validation: Images that accuracy is measured on.
            calibration: Other images. There must be one of both at least.
            on_progress: What the progress of an export is reported to, from its thread.
        """
        self.contract, self.validation, self.calibration = contract, validation, calibration
        self.images = [image for image, _ in (validation + calibration)[:MAX_IMAGES]]
        self._expected = predict(self.images)
        self.on_progress = on_progress
        self._class_ids = np.array([contract.labels.index(label) for _, label in validation], int)

    def validate(self, file: Path, float_layers: list[str] | None = None) -> ValidationResult:
        """Run an ONNX file on all images and compare its probabilities with the model's.

        Args:
            file: The ONNX file.
            float_layers: Names of the layers that int8 left in float, for the result.
        """
        in_steps = partial(track, step="comparing the file with the model", on_progress=self.on_progress)
        probabilities = predict_probabilities(file, self.images, self.contract, in_steps)
        return ValidationResult(
            parity=compare(probabilities, self._expected),
            num_validation_images=len(self._class_ids),
            accuracy=self._accuracy(probabilities),
            fp32_accuracy=self._accuracy(self._expected),
            trained_on_validation=self.contract.trained_on.trained_on_validation,
            float_layers=float_layers or [],
        )

    def accuracy_drop(self, file: Path) -> float:
        """Return how much accuracy an ONNX file loses against the model, 0 to 1.

        Where it changes more than `MAX_CHANGED_LABELS` of the labels, returns at least that share.
        """
        result = self.validate(file)
        drop = (result.fp32_accuracy or 0.0) - (result.accuracy or 0.0)  # None for both without validation images
        changed = 1 - result.parity.same_label / result.parity.num_images
        return max(drop, changed if changed > MAX_CHANGED_LABELS else 0.0)

    def _accuracy(self, probabilities: np.ndarray) -> float | None:
        """Return the accuracy on the validation images, which come first."""
        correct = probabilities[: len(self._class_ids)].argmax(1) == self._class_ids
        return float(correct.mean()) if len(correct) else None


def track(batches: list[np.ndarray], step: str, on_progress: OnProgress | None) -> Iterator[np.ndarray]:
    """Yield batches of images, and report before each how many images of the step are done."""
    done, total = 0, sum(map(len, batches))
    for batch in batches:
        if on_progress is not None:
            on_progress(f"{step}: {done} of {total} images", done / total)
        yield batch
        done += len(batch)
    if on_progress is not None:
        on_progress(f"{step}: {done} of {total} images", 1.0)


def sample_evenly(items: Sequence[T]) -> list[T]:
    """Return up to `MAX_IMAGES` of them, evenly spaced. If they are sorted by label, every label is among them."""
    indices = np.linspace(0, len(items) - 1, min(MAX_IMAGES, len(items))).round().astype(int)
    return [items[index] for index in np.unique(indices)]
