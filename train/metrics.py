"""The metrics of a run: accuracy and its confidence interval, confusion matrix, precision, recall, calibration error.

Predictions come from the same path as in live use: `preprocess`, then `InferenceModel`. `Metrics` is what metrics.json
holds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit  # the quantile of Student's t distribution

from teachcam.calibration import expected_calibration_error

MIN_FREEDOM = 3  # degrees of freedom: with fewer, an interval would say nothing at all
Z_95 = 1.96  # standard deviations of a normal distribution that hold 95 % of it


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for labeled images, and whether they are correct."""

    probabilities: np.ndarray  # float [N, num_classes]
    class_ids: np.ndarray  # int [N], the true labels

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class ids with the highest probability, int [N]."""
        return self.probabilities.argmax(1)

    @cached_property
    def confidences(self) -> np.ndarray:
        """The highest probabilities, float [N]."""
        return self.probabilities.max(1)

    @cached_property
    def correct(self) -> np.ndarray:
        """True for each prediction that is the true label, bool [N]."""
        return self.predicted == self.class_ids

    @property
    def accuracy(self) -> float | None:
        """The fraction of correct predictions, or None without images."""
        return float(self.correct.mean()) if len(self.correct) else None

    @cached_property
    def by_confidence(self) -> list[int]:
        """The indices of the images, the most confident prediction first."""
        return np.argsort(-self.confidences, kind="stable").tolist()


@dataclass(frozen=True)
class LabelMetrics:
    """The metrics of one label."""

    num_images: int  # whose true label it is
    precision: float | None  # None if it was never predicted
    recall: float | None  # None if it has no images


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a set of images. A value is None if there is no image to measure it on."""

    accuracy: float | None
    num_images: int
    confidence_interval: tuple[float, float] | None  # of the accuracy, 95 %
    expected_calibration_error: float | None
    per_label: dict[str, LabelMetrics]
    confusion: list[list[int]]  # [true label][predicted label]
    scenes: list[str]


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one validation image, in names instead of class ids."""

    file: str  # relative to the dataset folder
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Metrics:
    """Everything that metrics.json holds."""

    labels: list[str]
    backbone: str
    head: str
    strategy: str
    trials: list[dict]  # of `auto`, or of the folds: strategy, validation_accuracy, seconds
    config: dict  # the options of the run, as RunConfig.to_json returns them
    weights: str  # where the initial weights came from
    device: str
    num_processes: int
    seed: int
    num_training_images: int  # that the saved network was trained on
    seconds: float
    images_per_second: float | None
    data_wait_fraction: float | None  # of the training time, spent waiting for images
    skipped: list[str]  # a message for each file that could not be read
    left_out: list[str]  # a line for each label with files that are not used, or without images
    split: str  # scenes or frames
    num_folds: int  # 1 without cross-validation
    validation: Evaluation
    validation_scenes: list[str]  # that are for validation as a whole
    trained_on_validation: bool  # whether the saved network was trained on validation images too, after the measurement
    test: Evaluation | None
    labels_split_by_time: list[str]
    temperature: float
    unknown_threshold: float
    mistakes: list[ImagePrediction]  # the most confident first
    epochs: list[dict]  # of the measured training

    def to_json(self) -> str:
        """Return the text of metrics.json."""
        return json.dumps(asdict(self), indent=1)


def evaluate(
    predictions: Predictions, labels: tuple[str, ...], scenes: list[str], groups: list[str] | None = None
) -> Evaluation:
    """Measure predictions.

    Args:
        predictions: Predictions of N images.
        labels: Names of the labels in the order of their class ids.
        scenes: Scene of each image.
        groups: Group of each image; those of one are correct or wrong together, for the confidence interval. By default
            the scenes.
    """
    correct, num_images = predictions.correct, len(predictions.correct)
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (predictions.class_ids, predictions.predicted), 1)
    true_positives, actual, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_label = {
        label: LabelMetrics(
            int(actual[index]),
            float(true_positives[index] / predicted[index]) if predicted[index] else None,
            float(true_positives[index] / actual[index]) if actual[index] else None,
        )
        for index, label in enumerate(labels)
    }
    return Evaluation(
        accuracy=predictions.accuracy,
        num_images=num_images,
        confidence_interval=confidence_interval(correct, scenes if groups is None else groups)
        if len(correct)
        else None,
        expected_calibration_error=(
            expected_calibration_error(predictions.confidences, correct) if num_images else None
        ),
        per_label=per_label,
        confusion=confusion.tolist(),
        scenes=sorted(set(scenes)),
    )


def confidence_interval(correct: np.ndarray, groups: list[str]) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy: Wilson's (1927), for the effective number of images.

    Images of a scene are correct or wrong together, so N images tell less than N independent ones. The design effect
    (Kish 1965) gives the effective number: how many independent images would vary as the groups' accuracies do. It
    lies between the number of groups and the number of images. A few groups tell little about how much groups vary,
    so the quantile is Student's (1908) for their number.

    Args:
        correct: Whether each prediction is correct, bool [N], N > 0.
        groups: Name of each image's group, usually its scene.

    Returns:
        Lower and upper bound, 0 to 1.
    """
    num_images, names = len(correct), sorted(set(groups))
    accuracy, effective = correct.mean(), float(num_images)
    if len(names) < num_images:
        number_of = {name: number for number, name in enumerate(names)}
        numbers = np.array([number_of[group] for group in groups])
        excess = np.bincount(numbers, correct) - np.bincount(numbers) * accuracy  # correct images above the average
        variance = float(excess @ excess) / num_images**2 * len(names) / max(1, len(names) - 1)
        effective = accuracy * (1 - accuracy) / variance if variance else 0.0
        effective = min(max(effective, len(names)), num_images)
    freedom = max(MIN_FREEDOM, len(names) - 1)
    quantile = Z_95 if len(names) == num_images else float(stdtrit(freedom, 0.975))
    square = quantile**2
    center = (accuracy + square / (2 * effective)) / (1 + square / effective)
    radius = np.sqrt(accuracy * (1 - accuracy) / effective + square / (4 * effective**2))
    radius = quantile / (1 + square / effective) * radius
    return float(max(0.0, center - radius)), float(min(1.0, center + radius))
