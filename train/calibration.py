"""What an answer is worth: probabilities that come true, and a threshold under which the answer is `unknown`.

Both are fitted on held-out frames, whose accuracy is that of a new place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy

KEPT = 0.95  # the share of the known frames that the threshold lets pass


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities, float64 [N, labels]."""
    return torch.softmax(torch.from_numpy(logits).double() / temperature, 1).numpy()


def fit_temperature(logits: np.ndarray, class_ids: np.ndarray) -> float:
    """Return what to divide logits [N, labels] by so that the true labels become most likely (Guo et al. 2017).

    A few frames may say anything, and those of a session say all the same: ten count as one against the prior that the
    temperature is 1, give or take a factor of 1.6. Without any it is 1.
    """
    temperatures = np.geomspace(0.1, 10, 201)
    scores, targets = torch.from_numpy(logits).double(), torch.from_numpy(class_ids)
    losses = [cross_entropy(scores / value, targets, reduction="sum").item() for value in temperatures]
    return float(temperatures[np.argmin(np.array(losses) / 10 + 2 * np.log(temperatures) ** 2)])


def fit_threshold(probabilities: np.ndarray) -> float:
    """Return the confidence that KEPT of the answers have at least; 0 where there are too few to tell."""
    if len(probabilities) < 20:
        return 0.0
    return float(np.quantile(probabilities.max(1), 1 - KEPT))


def expected_calibration_error(probabilities: np.ndarray, class_ids: np.ndarray, bins: int = 10) -> float:
    """Return how far confidence and accuracy are apart, on the average over bins of equal width of confidence."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == class_ids
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[own].mean() - right[own].mean()) * own.mean()
        for own in (bin_of == index for index in range(bins))
        if own.any()
    ]
    return float(sum(gaps))
