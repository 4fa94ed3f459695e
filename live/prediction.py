"""Answers, and how they are steadied: what flickers for a frame is no change, what changes is told at once.

Probabilities are averaged over time, the newest weighing most (an exponentially weighted moving average), by the
frames' own clock: how long an answer takes to change does not depend on the camera's rate, and what was seen before a
pause is forgotten.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera

UNKNOWN = "unknown"
SMOOTHING = 0.15  # seconds: the least that bridges a spoilt frame in five (benchmarks/steady.py), 3 to 4 frames late


def usual_smoothing(camera: Camera) -> float:
    """Return how many seconds to average over; 0 for a folder's pictures, which have nothing to do with each other."""
    return SMOOTHING if camera.live or camera.fps else 0.0


class Prediction(NamedTuple):
    """What the model says of a frame, or of the last few."""

    label: str  # "unknown" where the confidence is below the contract's threshold
    confidence: float  # the probability of the likeliest label
    probabilities: dict[str, float]  # in the contract's order


def to_prediction(probabilities: dict[str, float], unknown_threshold: float) -> Prediction:
    """Return the answer that these probabilities stand for."""
    best = max(probabilities, key=probabilities.__getitem__)
    confidence = probabilities[best]
    return Prediction(best if confidence >= unknown_threshold else UNKNOWN, confidence, probabilities)


class Smoother:
    """Turns the answers for single frames into steady ones."""

    def __init__(self, unknown_threshold: float, smoothing: float = SMOOTHING, min_hold: float = 0.0):
        """Average over `smoothing` seconds (0: not), and let a label count when it has held for `min_hold` seconds."""
        self._threshold, self._smoothing, self._min_hold = unknown_threshold, smoothing, min_hold
        self._average: dict[str, float] | None = None
        self._time = 0.0
        self._label: str | None = None  # what is answered
        self._candidate, self._since = "", 0.0  # what would be, and since when

    def __call__(self, answer: Prediction, time: float) -> Prediction:
        """Return the steady answer at `time` (seconds, of Frame.time), given the one for the frame alone."""
        if self._average is None or self._smoothing == 0:
            self._average = answer.probabilities
        else:
            weight = 1 - math.exp(-(time - self._time) / self._smoothing)
            self._average = {
                label: (1 - weight) * before + weight * now
                for (label, before), now in zip(self._average.items(), answer.probabilities.values())
            }
        self._time = time
        steady = to_prediction(self._average, self._threshold)
        if steady.label != self._candidate:
            self._candidate, self._since = steady.label, time
        if self._label is None or time - self._since >= self._min_hold:
            self._label = steady.label
        if steady.label == self._label:
            return steady
        return Prediction(self._label, self._average.get(self._label, steady.confidence), self._average)
