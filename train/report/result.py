"""The result of a training run, from which its files and its summary are written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine.strategies import StrategyResult
from teachcam.train.metrics import ImagePrediction, Predictions


@dataclass(frozen=True)
class TrainingResult:
    """Everything that a training run found out."""

    dataset: Dataset
    fingerprint: str  # of the images when they were read
    splits: list[Split]  # one, or one for each fold
    test: list[Sample]
    outcome: StrategyResult
    initial_weights: str  # where the backbone's weights came from
    head_accuracies: list[float] | None  # with `--split frames`: a head alone, on random images and on whole scenes
    seconds: float

    @property
    def validation(self) -> list[Sample]:
        """The validation samples of all splits. The outcome's probabilities are in this order."""
        return [sample for split in self.splits for sample in split.validation]

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions for the validation samples."""
        return Predictions(self.outcome.probabilities, self.class_ids(self.validation))

    @property
    def wrong(self) -> list[int]:
        """The indices of the validation samples with a wrong prediction, the most confident first."""
        return [index for index in self.predictions.by_confidence if not self.predictions.correct[index]]

    def class_ids(self, samples: list[Sample]) -> np.ndarray:
        """Return the true class ids of samples, int [N]."""
        class_id_of = {label: class_id for class_id, label in enumerate(self.dataset.labels)}
        return np.array([class_id_of[sample.label] for sample in samples], int)

    def image_prediction(self, index: int) -> ImagePrediction:
        """Return the file, true label, predicted label and confidence of a validation sample."""
        predictions, sample = self.predictions, self.validation[index]
        return ImagePrediction(
            file=self.dataset.relative_path(sample),
            label=sample.label,
            predicted=self.dataset.labels[predictions.predicted[index]],
            confidence=float(predictions.confidences[index]),
        )
