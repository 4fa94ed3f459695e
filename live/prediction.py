"""Predictions, and smoothing that removes flicker and still reports a real change quickly.

Probabilities are averaged over time, and newer frames weigh more: an exponentially weighted moving average. Time is
measured by the frames' timestamps. So a change takes as long to show at any frame rate, and what the camera saw before
a pause is forgotten.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from teachcam.labels import UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from teachcam.collect.camera import Camera
    from teachcam.contract import Contract

# Seconds. The smallest value that hides one spoiled frame in five; it delays a change by 3 to 4 frames at 30 FPS
# (benchmarks/steady.py).
SMOOTHING = 0.15


def default_smoothing(camera: Camera) -> float:
    """Return the seconds to average over: 0 for a folder of images, which are unrelated, and SMOOTHING otherwise."""
    return SMOOTHING if camera.live or camera.fps else 0.0


class Prediction(NamedTuple):
    """A prediction for a frame, or for the last few frames if it is smoothed."""

    label: str  # "unknown" if the confidence is below the contract's threshold
    confidence: float  # the highest probability, 0 to 1
    probabilities: dict[str, float]  # of each label, in the contract's order


def to_prediction(probabilities: dict[str, float], unknown_threshold: float) -> Prediction:
    """Turn probabilities into a prediction.

    Args:
        probabilities: The probability of each label, 0 to 1.
        unknown_threshold: A lower confidence makes the label "unknown".
    """
    likeliest = max(probabilities, key=probabilities.__getitem__)
    confidence = probabilities[likeliest]
    return Prediction(likeliest if confidence >= unknown_threshold else UNKNOWN, confidence, probabilities)


class Model(Protocol):
    """A model that the live loop can run: a Classifier or a TaughtModel."""

    contract: Contract

    @property
    def path(self) -> Path:
        """The model's file."""

    @property
    def provider(self) -> str:
        """The execution provider that runs it."""

    def classify(self, image: np.ndarray) -> Prediction:
        """Classify one image, uint8 [H, W, 3] BGR. Raises ModelError."""

    def predict_probabilities(self, model_input: np.ndarray) -> np.ndarray:
        """Return the probabilities of the labels, float [labels], for an image as `preprocess` returns it."""

    def clone_for_thread(self) -> Model:
        """Return the same model for another thread."""


class ModelSource(Protocol):
    """Gives newer models to the live loop: a ModelWatcher, a Teacher or a Studio."""

    def take(self) -> Model | None:
        """Return a newer model if there is one since the last call."""


class Smoother:
    """Averages the predictions for single frames over time."""

    def __init__(self, unknown_threshold: float, smoothing: float = SMOOTHING, min_hold: float = 0.0):
        """Create a smoother for one stream of frames.

        Args:
            unknown_threshold: A lower averaged confidence makes the label "unknown".
            smoothing: The time constant of the average, in seconds. 0 turns averaging off.
            min_hold: Seconds that a new label must stay the likeliest before it is reported.
        """
        self._threshold, self._smoothing, self._min_hold = unknown_threshold, smoothing, min_hold
        self._average: dict[str, float] | None = None
        self._time = 0.0
        self._label: str | None = None  # the label that is reported
        self._candidate, self._candidate_since = "", 0.0  # the likeliest label, which may not have held long enough

    def __call__(self, prediction: Prediction, time: float) -> Prediction:
        """Add a frame's prediction and return the smoothed one.

        Args:
            prediction: The prediction for this frame alone.
            time: The frame's time in seconds (`Frame.time`).
        """
        if self._average is None or self._smoothing == 0:
            self._average = prediction.probabilities
        else:
            weight = 1 - math.exp(-(time - self._time) / self._smoothing)
            self._average = {
                label: (1 - weight) * before + weight * now
                for (label, before), now in zip(self._average.items(), prediction.probabilities.values())
            }
        self._time = time
        smoothed = to_prediction(self._average, self._threshold)
        if smoothed.label != self._candidate:
            self._candidate, self._candidate_since = smoothed.label, time
        if self._label is None or time - self._candidate_since >= self._min_hold:
            self._label = smoothed.label
        if smoothed.label == self._label:
            return smoothed
        return Prediction(self._label, self._average.get(self._label, smoothed.confidence), self._average)
