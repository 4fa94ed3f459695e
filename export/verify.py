"""Measure an exported file against the trained network, on images of the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from teachcam.contract import Contract
from teachcam.errors import ExportError, UnreadableImage
from teachcam.export.parity import ValidationResult, compare
from teachcam.export.quantize import MIN_CALIBRATION_IMAGES
from teachcam.images import read_image
from teachcam.onnx_session import predict_probabilities
from teachcam.preprocessing import shrink
from teachcam.train.model.checkpoint import Checkpoint
from teachcam.train.model.inference import InferenceModel, predict

MAX_IMAGES = 200  # to compare a file on, and as many to calibrate int8 on: a few seconds each on two cores
MAX_ACCURACY_DROP = 0.01 + 1e-9  # one percentage point that int8 may lose; 1e-9 allows for rounding
MAX_CHANGED_LABELS = 0.1  # int8 that changes more labels than this is refused, even if as many are right


class Validator:
    """Compares exported files with one trained network.

    Attributes:
        contract: The network's contract.
        model: The network as it is exported, in float32.
        validation: Validation images with their labels.
        calibration: Training images with their labels: int8 is calibrated on them.
        images: All images that files are compared on, the validation images first.
    """

    def __init__(self, checkpoint: Checkpoint, data: Path | None = None):
        """Read the images and predict them with the network.

        Args:
            checkpoint: The network, and the names of its images.
            data: The dataset's folder; by default the folder that the checkpoint names.

        Raises:
            ExportError: None of the checkpoint's images is in the folder.
        """
        self.contract = checkpoint.contract
        self.model = InferenceModel(checkpoint.network, self.contract)
        folder = data or Path(checkpoint.data_folder)
        self.validation = _read_images(_sample_evenly(checkpoint.validation_files), folder, self.contract)
        self.calibration = _read_images(_sample_evenly(checkpoint.training_files), folder, self.contract)
        if len(self.calibration) < MIN_CALIBRATION_IMAGES:  # after cross-validation all are validation images
            self.calibration += self.validation[1::2]
            self.validation = self.validation[::2]
        self.images = [image for image, _ in (self.validation + self.calibration)[:MAX_IMAGES]]
        if not self.images:
            raise ExportError(
                f"none of the images that the model was trained on is in {folder}, so the export can't be verified: "
                "give their folder with python export/to_onnx.py --data DIR"
            )
        self._expected = predict(self.model, self.images, self.contract)
        self._class_ids = np.array([self.contract.labels.index(label) for _, label in self.validation], int)

    def validate(self, file: Path, float_layers: list[str] | None = None) -> ValidationResult:
        """Run an ONNX file on all images and compare its probabilities with the network's.

        Args:
            file: The ONNX file.
            float_layers: Names of the layers that int8 left in float, for the result.
        """
        probabilities = predict_probabilities(file, self.images, self.contract)
        return ValidationResult(
            parity=compare(probabilities, self._expected),
            num_validation_images=len(self._class_ids),
            accuracy=self._accuracy(probabilities),
            fp32_accuracy=self._accuracy(self._expected),
            trained_on_validation=self.contract.trained_on.trained_on_validation,
            float_layers=float_layers or [],
        )

    def accuracy_drop(self, file: Path) -> float:
        """Return how much accuracy an ONNX file loses against the network, 0 to 1.

        Where it changes more than `MAX_CHANGED_LABELS` of the labels, returns at least that share.
        """
        result = self.validate(file)
        drop = result.fp32_accuracy - result.accuracy if self.validation else 0.0
        changed = 1 - result.parity.same_label / result.parity.num_images
        return max(drop, changed if changed > MAX_CHANGED_LABELS else 0.0)

    def _accuracy(self, probabilities: np.ndarray) -> float | None:
        """Return the accuracy on the validation images, which come first."""
        correct = probabilities[: len(self._class_ids)].argmax(1) == self._class_ids
        return float(correct.mean()) if len(correct) else None


def _sample_evenly(names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return up to `MAX_IMAGES` of them, evenly spaced, so that every label is among them: they are sorted by label."""
    indices = np.linspace(0, len(names) - 1, min(MAX_IMAGES, len(names))).round().astype(int)
    return [names[index] for index in np.unique(indices)]


def _read_images(names: list[tuple[str, str]], folder: Path, contract: Contract) -> list[tuple[np.ndarray, str]]:
    """Read images and their labels; an image is shrunk as far as `preprocess` allows, to save memory."""
    images = []
    for label, name in names:
        try:
            images.append((shrink(read_image(folder / name), contract.input_size), label))
        except UnreadableImage:
            continue  # moved or deleted since training; the others are enough
    return images
