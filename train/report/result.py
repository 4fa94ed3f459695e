"""All that a training found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from teachcam.collect.dataset import Sample
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.split import Split
from teachcam.train.engine.strategies import StrategyResult


@dataclass(frozen=True)
class TrainingResult:
    """All that a training found out."""

    dataset: Dataset
    fingerprint: str  # of its pictures as they were read
    splits: list[Split]
    test: list[Sample]
    outcome: StrategyResult
    weights: str  # where the first ones came from
    worth: list[float] | None  # a head's accuracy on frames held out at random, and on whole sessions
    seconds: float

    @property
    def validation(self) -> list[Sample]:
        """The items that the outcome's probabilities are of, in their order."""
        return [item for split in self.splits for item in split.validation]

    def answers(self, indices: Iterable[int]) -> list[dict]:
        """Return what was answered for held-out items, as plain values."""
        labels, rows, items = self.dataset.labels, self.outcome.probabilities, self.validation
        return [
            {
                "file": self.dataset.name(items[index]),
                "true": items[index].label,
                "answer": labels[rows[index].argmax()],
                "confidence": float(rows[index].max()),
            }
            for index in indices
        ]

    def surest(self) -> list[int]:
        """Return the indices of the held-out items, the surest answer first."""
        return np.argsort(-self.outcome.probabilities.max(1), kind="stable").tolist() if self.validation else []

    def mistakes(self, most: int) -> list[dict]:
        """Return the wrong answers, the surest first."""
        return [one for one in self.answers(self.surest()) if one["true"] != one["answer"]][:most]
