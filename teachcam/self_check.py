"""A few images that travel with a model, and its answers where it was exported: does it answer the same here?

What is proved on one processor is proved there only. `doctor`, the live loop and its watch for newer models repeat
the check on the machine that runs the model.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from teachcam.contract import Contract
from teachcam.onnx_session import answer
from teachcam.preprocessing import resize
from teachcam.processor import processor_name

METADATA_KEY = "teachcam.check"  # where an ONNX file carries it
NUM_IMAGES = 8
JPEG_QUALITY = 85  # an image of 224x224 is about 10 kB then

# The mean over the images of the largest difference of a probability. fp16 and int8 differ between TensorRT and a CPU
# by their order of additions and by rounding.
TOLERANCE = {"fp32": 0.01, "fp16": 0.02, "int8": 0.05}


@dataclass(frozen=True)
class SelfCheck:
    """Images of the dataset, and the probabilities that the model gave them where it was exported."""

    jpegs: list[bytes]  # of the contract's size
    probabilities: np.ndarray  # float [N, labels]
    precision: str
    processor: str  # where they were computed
    onnxruntime: str  # its version there

    def to_json(self) -> str:
        """Return it as one line of JSON, the images in base64."""
        jpegs = [base64.b64encode(jpeg).decode() for jpeg in self.jpegs]
        return json.dumps({**vars(self), "jpegs": jpegs, "probabilities": self.probabilities.round(6).tolist()})

    @classmethod
    def of(cls, model: Path, frames: list[np.ndarray], contract: Contract, precision: str) -> SelfCheck:
        """Ask an exported file about some of the frames (uint8 [H, W, 3] BGR, any size), as they will travel."""
        chosen = [frames[index] for index in np.unique(np.linspace(0, len(frames) - 1, NUM_IMAGES).round().astype(int))]
        jpegs = [_to_jpeg(resize(frame, contract.input_size)) for frame in chosen]
        answers = answer(model, [_from_jpeg(jpeg) for jpeg in jpegs], contract)
        return cls(jpegs, answers, precision, processor_name(), onnxruntime.__version__)

    @classmethod
    def from_json(cls, text: str) -> SelfCheck:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        jpegs = [base64.b64decode(jpeg) for jpeg in fields["jpegs"]]
        return cls(**{**fields, "jpegs": jpegs, "probabilities": np.array(fields["probabilities"])})

    @property
    def images(self) -> list[np.ndarray]:
        """The images, uint8 [H, W, 3] BGR."""
        return [_from_jpeg(jpeg) for jpeg in self.jpegs]

    def difference(self, probabilities: np.ndarray) -> float:
        """Return how far other probabilities [N, labels] are off: the mean of each image's largest difference."""
        return float(np.abs(probabilities - self.probabilities).max(axis=1).mean())

    def passes(self, probabilities: np.ndarray) -> bool:
        """Return whether the same model gave these probabilities, as far as its precision allows."""
        return self.difference(probabilities) <= TOLERANCE[self.precision]  # False for NaN


def _to_jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _from_jpeg(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
