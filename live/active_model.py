"""The model that the live loop runs now, and the way back to the model before it."""

from __future__ import annotations

import logging

from teachcam.cli import first_line
from teachcam.collect.camera import Frame
from teachcam.errors import ModelError
from teachcam.live.prediction import Model, Prediction, Smoother

logger = logging.getLogger(__name__)


class ActiveModel:
    """Classifies and smooths frames with one model at a time, which may be replaced between two frames.

    Attributes:
        classifier: The model that runs now.
    """

    def __init__(self, classifier: Model, smoothing: float, min_hold: float):
        """Start with a model.

        Args:
            classifier: The first model.
            smoothing: Seconds over which predictions are averaged. 0 turns it off.
            min_hold: Seconds that a new label must stay the likeliest before it is reported.
        """
        self._smoothing, self._min_hold = smoothing, min_hold
        self._previous: Model | None = None
        self._use(classifier)

    def predict(self, frame: Frame) -> tuple[Prediction, Prediction]:
        """Return the smoothed prediction and that for this frame alone. Raises ModelError if the model fails."""
        raw = self.classifier.classify(frame.image)
        return self._smooth(raw, frame.time), raw

    def swap(self, newer: Model) -> None:
        """Run another model from now on. Smoothing starts anew, because the labels may differ."""
        self._previous = self.classifier
        self._use(newer)

    def roll_back(self, error: ModelError) -> None:
        """Run the previous model again after the current one failed. Raises `error` if there is none."""
        if self._previous is None:
            raise error
        logger.warning(f"went back to the old model: {first_line(error)}")
        self._use(self._previous)
        self._previous = None

    def _use(self, classifier: Model) -> None:
        self.classifier = classifier
        self._smooth = Smoother(classifier.contract.unknown_threshold, self._smoothing, self._min_hold)
