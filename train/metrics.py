"""How good a model is, measured on the very path that live takes: `preprocess`, then `InferenceModel`."""

from __future__ import annotations

import numpy as np


def interval(right: np.ndarray, groups: list[str]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of an accuracy; `right` is bool [N], `groups` say which frames go together.

    Frames of a session are right or wrong together, so they count for fewer: for as many independent ones as would
    spread as the sessions' accuracies do (between their number and that of the frames). Then it is Wilson's interval.
    """
    frames, names = len(right), sorted(set(groups))
    if not frames:
        return None
    own = [np.array([group == name for group in groups]) for name in names] if len(names) < frames else []
    accuracy, count = right.mean(), float(frames)
    if own:
        gaps = sum((right[mask].sum() - mask.sum() * accuracy) ** 2 for mask in own)
        variance = gaps / frames**2 * len(own) / max(1, len(own) - 1)
        count = accuracy * (1 - accuracy) / variance if variance else 0.0
        count = min(max(count, len(own)), frames)
    square = 1.96**2
    middle = (accuracy + square / (2 * count)) / (1 + square / count)
    reach = 1.96 / (1 + square / count) * np.sqrt(accuracy * (1 - accuracy) / count + square / (4 * count**2))
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def score(probabilities: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> dict:
    """Return accuracy, confusion matrix and each label's precision and recall as plain values for metrics.json.

    `probabilities` is float [N, labels], `targets` int [N]. A figure that nothing was measured for is None.
    """
    confusion = np.zeros((len(labels), len(labels)), int)  # [true label, answer]
    np.add.at(confusion, (targets, probabilities.argmax(1)), 1)
    right, true, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {
        "accuracy": float(right.sum() / len(targets)) if len(targets) else None,
        "frames": len(targets),
        "per_label": {
            label: {
                "frames": int(true[index]),
                "precision": float(right[index] / answered[index]) if answered[index] else None,
                "recall": float(right[index] / true[index]) if true[index] else None,
            }
            for index, label in enumerate(labels)
        },
        "confusion": confusion.tolist(),
    }
