"""Parity: the exported file must answer as the trained network does, on real frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collect.cli import UserError
from export.providers import open_exactly
from train.contract import Contract, preprocess

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of any probability
SOME = 3  # frames at once, where a file leaves the batch open


class ExportError(UserError):
    """A model that can't be exported, or a file that does not answer as what was trained."""


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


def answer(file: Path, frames: list[np.ndarray], contract: Contract) -> np.ndarray:
    """Return the probabilities [N, labels] that an ONNX file gives frames (uint8 BGR, any size), on the CPU.

    int8 is computed exactly, as TensorRT does: what a CPU without VNNI would clip is no fault of the file's.
    """
    session = open_exactly(file)
    (value,) = session.get_inputs()
    batch = value.shape[0] if isinstance(value.shape[0], int) else SOME
    inputs = batches(frames, contract, np.uint8 if value.type == "tensor(uint8)" else np.float32, batch)
    rows = [session.run(["probabilities"], {value.name: part})[0] for part in inputs]
    return np.concatenate(rows)[: len(frames)]


def batches(frames: list[np.ndarray], contract: Contract, dtype: type, batch: int) -> list[np.ndarray]:
    """Return a graph's inputs, [batch, H, W, 3] each, from frames (uint8 BGR, any size); the last is filled up."""
    inputs = [preprocess(frame, contract) for frame in frames]
    inputs += inputs[:1] * (-len(inputs) % batch)
    return [np.stack(inputs[start : start + batch]).astype(dtype) for start in range(0, len(inputs), batch)]
