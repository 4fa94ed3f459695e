"""Parity: the exported file must answer as the trained network does, on real frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from teachcam.errors import ExportError

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of any probability


@dataclass(frozen=True)
class Parity:
    """What was compared: `frames` real frames, on `agreeing` of which both give the same label."""

    frames: int
    agreeing: int
    largest_difference: float  # of any probability

    def require(self, tolerance: float = TOLERANCE["fp32"]) -> None:
        """Raise ExportError where a probability differs by more than `tolerance`, or a label does in float32."""
        labels = self.agreeing == self.frames or tolerance > TOLERANCE["fp32"]  # two labels may be nearly as likely
        if not (labels and self.largest_difference <= tolerance):
            raise ExportError(
                f"the exported model is not the trained one: {self.agreeing} of {self.frames} labels agree, "
                f"largest difference {self.largest_difference:.2g} (allowed {tolerance:g}); no file was written"
            )


def compare(answers: np.ndarray, expected: np.ndarray) -> Parity:
    """Compare probabilities [N, labels]."""
    return Parity(
        frames=len(answers),
        agreeing=int((answers.argmax(1) == expected.argmax(1)).sum()),
        largest_difference=float(np.abs(answers - expected).max()),
    )
