"""A model that was taught: the frozen backbone, and a head on it. The live loop runs it like any other model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from teachcam.calibration import softmax
from teachcam.contract import Contract
from teachcam.live.prediction import Prediction, to_prediction
from teachcam.preprocessing import preprocess
from teachcam.ridge import RidgeHead
from teachcam.teach.backbone import Backbone


class TaughtModel:
    """Classifies images. One thread may use it at a time; the live loop does.

    Attributes:
        head: The head.
        contract: The labels, the calibration and the input size.
        path, provider: The backbone's.
    """

    def __init__(self, backbone: Backbone, head: RidgeHead | None, contract: Contract):
        """Put a head on a backbone.

        Args:
            backbone: Backbone of the thread that classifies.
            head: Head on its features. Without one, everything is unknown.
            contract: Lists the labels in the order of the outputs. The head may have one more, for images of no label.
        """
        self.head, self.contract = head, contract
        self._backbone = backbone

    @property
    def path(self) -> Path:
        """The backbone's file."""
        return self._backbone.path

    @property
    def provider(self) -> str:
        """The execution provider that runs the backbone."""
        return self._backbone.provider

    def clone_for_thread(self) -> TaughtModel:
        """Return a model for another thread."""
        return TaughtModel(self._backbone.clone_for_thread(), self.head, self.contract)

    def classify(self, image: np.ndarray) -> Prediction:
        """Classify one image, uint8 [H, W, 3], BGR, of any size. Raises ModelError if the backbone fails."""
        probabilities = self.predict_probabilities(preprocess(image, self.contract)).tolist()
        return to_prediction(dict(zip(self.contract.labels, probabilities)), self.contract.unknown_threshold)

    def predict_probabilities(self, model_input: np.ndarray) -> np.ndarray:
        """Return the probabilities of the labels, float [labels].

        Args:
            model_input: uint8 [height, width, 3], as `preprocess` returns it.
        """
        features = self._backbone.run(model_input)
        if self.head is None:
            return np.zeros(len(self.contract.labels))
        logits = self.head.logits(features[None])
        return softmax(logits, self.contract.temperature)[0, : len(self.contract.labels)]
