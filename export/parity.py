"""Parity: the exported file must answer as the trained network does, on real frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from collect.cli import UserError
from train.backbones import Deployed
from train.contract import Contract, preprocess
from train.evaluate import predict


class ExportError(UserError):
    """A model that can't be exported, or a file that does not answer as what was trained."""


@dataclass(frozen=True)
class Parity:
    """What was compared: `frames` real frames, on `agreeing` of which both give the same label."""

    frames: int
    agreeing: int
    largest_difference: float  # of any probability

    def require(self, tolerance: float = 1e-4) -> None:
        """Raise ExportError unless every label agrees and no probability differs by more than `tolerance`."""
        if self.agreeing < self.frames or not self.largest_difference <= tolerance:
            raise ExportError(
                f"the exported model is not the trained one: {self.agreeing} of {self.frames} labels agree, "
                f"largest difference {self.largest_difference:.2g} (allowed {tolerance:g}); no file was written"
            )


def measure_parity(onnx_file: Path, model: Deployed, frames: list[np.ndarray], contract: Contract) -> Parity:
    """Compare a file, in ONNX Runtime on the CPU, with PyTorch on frames (uint8 BGR, any size)."""
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    answers = np.concatenate(
        [session.run(["probabilities"], {name: preprocess(frame, contract)[None]})[0] for frame in frames]
    )
    expected = predict(model, frames, contract)
    return Parity(
        frames=len(frames),
        agreeing=int((answers.argmax(1) == expected.argmax(1)).sum()),
        largest_difference=float(np.abs(answers - expected).max()),
    )
