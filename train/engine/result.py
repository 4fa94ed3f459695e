"""The result of a training, from which the files and the summary of a run are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from teachcam.calibration import softmax
from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split
from teachcam.contract import Contract
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.metrics import ImagePrediction, Predictions
from teachcam.train.model.backbones import Network


@dataclass(frozen=True)
class Result:
    """A trained network, and how it did on the validation images before it was trained on them too."""

    data: TrainingData
    folds: list[Split]
    network: Network
    contract: Contract  # with the fitted temperature and threshold
    strategy: str
    logits: np.ndarray  # float32 [N, num_outputs], of the validation samples
    history: list[dict]  # metrics of each epoch
    trials: list[dict]  # for each strategy tried: its name, validation accuracy (or None) and seconds
    validated_network: Network | None = None  # the network whose logits these are; None if it is several or `network`
    head_accuracies: list[float] | None = None  # of a head alone, on random images and on whole scenes
    notes: list[str] = field(default_factory=list)  # lines about what was not done, for the user

    @property
    def validation(self) -> list[Sample]:
        """The validation samples of all folds. The logits are in this order."""
        return [sample for fold in self.folds for sample in fold.validation]

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions for the validation samples."""
        probabilities = softmax(self.logits, self.contract.temperature)[:, : len(self.contract.labels)]
        return Predictions(probabilities, self.class_ids(self.validation))

    @property
    def wrong(self) -> list[int]:
        """The indices of the validation samples with a wrong prediction, the most confident first."""
        return [index for index in self.predictions.by_confidence if not self.predictions.correct[index]]

    def class_ids(self, samples: list[Sample]) -> np.ndarray:
        """Return the true class ids of samples, int [N]."""
        return np.array([self.contract.labels.index(sample.label) for sample in samples], int)

    def image_prediction(self, index: int) -> ImagePrediction:
        """Return the file, true label, predicted label and confidence of a validation sample."""
        predictions, sample = self.predictions, self.validation[index]
        return ImagePrediction(
            file=self.data.dataset.relative_path(sample),
            label=sample.label,
            predicted=self.contract.labels[predictions.predicted[index]],
            confidence=float(predictions.confidences[index]),
        )
