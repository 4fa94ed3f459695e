"""Calibrate a model: fit the temperature of its probabilities and the threshold below which it answers `unknown`.

Both are fitted on validation images, which show how the model does in a new place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from teachcam.contract import Contract

ACCEPTED_FRACTION = 0.95  # of validation images whose confidence reaches the threshold
MIN_IMAGES = 20  # fewer than this say nothing about a 5 % quantile
# A prior for few validation images: the temperature is 1 within a factor of 1.6, exp(1/2), at one standard deviation.
# Images of a scene resemble each other, so ten of them count as one observation.
IMAGES_PER_OBSERVATION = 10


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities, float64 [N, num_classes], of logits, float [N, num_classes]."""
    return np.exp(_log_softmax(logits, temperature))


def cross_entropy(logits: np.ndarray, class_ids: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean cross-entropy of logits, float [N, num_classes], for the true labels, int [N]."""
    return -float(_log_softmax(logits, temperature)[np.arange(len(class_ids)), class_ids].mean())


def _log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    logits = logits.astype(np.float64) / temperature
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def fit_temperature(logits: np.ndarray, class_ids: np.ndarray) -> float:
    """Fit the temperature that makes the true labels most likely: temperature scaling (Guo 2017).

    A prior near 1 keeps a few images from deciding. Without any images the result is 1.

    Args:
        logits: float [N, num_classes].
        class_ids: int [N], the true labels.

    Returns:
        The temperature, 0.1 to 10. Divide logits by it before the softmax.
    """
    if not len(logits):
        return 1.0
    temperatures = np.geomspace(0.1, 10, 201)
    losses = np.array([cross_entropy(logits, class_ids, temperature) for temperature in temperatures])
    penalties = 2 * np.log(temperatures) ** 2
    return float(temperatures[np.argmin(len(logits) * losses / IMAGES_PER_OBSERVATION + penalties)])


def fit_threshold(probabilities: np.ndarray) -> float:
    """Return the confidence that ACCEPTED_FRACTION of the images reach, or 0 for fewer than MIN_IMAGES images.

    Args:
        probabilities: float [N, num_classes].
    """
    if len(probabilities) < MIN_IMAGES:
        return 0.0
    return float(np.quantile(probabilities.max(1), 1 - ACCEPTED_FRACTION))


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose confidence lies in one interval."""

    index: int  # of the interval, from 0
    confidence: float  # mean, 0 to 1
    accuracy: float  # 0 to 1
    num_images: int


def confidence_bins(confidences: np.ndarray, correct: np.ndarray, num_bins: int = 10) -> list[ConfidenceBin]:
    """Group images into intervals of equal width of their confidence. Empty intervals are left out.

    Args:
        confidences: float [N], 0 to 1.
        correct: bool [N], whether each prediction is correct.
        num_bins: Number of intervals.
    """
    bin_of = np.minimum((confidences * num_bins).astype(int), num_bins - 1)
    masks = {index: bin_of == index for index in range(num_bins)}
    return [
        ConfidenceBin(index, float(confidences[mask].mean()), float(correct[mask].mean()), int(mask.sum()))
        for index, mask in masks.items()
        if mask.any()
    ]


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, num_bins: int = 10) -> float:
    """Return the expected calibration error (Naeini 2015): the mean gap between confidence and accuracy, 0 to 1.

    Args:
        confidences: float [N], 0 to 1.
        correct: bool [N], whether each prediction is correct.
        num_bins: Number of confidence intervals of equal width.
    """
    bins = confidence_bins(confidences, correct, num_bins)
    return float(sum(abs(one.confidence - one.accuracy) * (one.num_images / len(correct)) for one in bins))


def calibrate(
    contract: Contract, logits: np.ndarray, class_ids: np.ndarray, has_outliers: bool
) -> tuple[Contract, np.ndarray]:
    """Fit temperature and threshold to the validation images.

    Args:
        contract: Contract of the trained network.
        logits: float32 [N, num_classes], of the validation images; or with one more column, for images of no label.
        class_ids: int64 [N], their labels.
        has_outliers: Whether training used images of no label (outlier exposure, Hendrycks 2019). Only then does a low
            confidence mean "unknown". Otherwise the threshold is 0: it would reject images of another room.

    Returns:
        The contract with temperature and threshold, and the probabilities, float64 [N, num_classes].
    """
    temperature = fit_temperature(logits, class_ids)
    probabilities = softmax(logits, temperature)[:, : len(contract.labels)]
    threshold = fit_threshold(probabilities) if has_outliers else 0.0
    return replace(contract, temperature=temperature, unknown_threshold=threshold), probabilities
