"""The self check: images that travel inside a model's file, with the probabilities predicted where it was exported.

A model that was validated on one processor may predict something else on another. So live/doctor.py and the live loop
repeat the predictions on the machine that runs the model, and compare.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from teachcam.contract import Contract
from teachcam.errors import ModelError
from teachcam.files import parse_json
from teachcam.images import decode_image, encode_jpeg
from teachcam.onnx_session import predict_probabilities
from teachcam.preprocessing import resize
from teachcam.processor import processor_name

METADATA_KEY = "teachcam.check"  # of the entry in an ONNX file's metadata
NUM_IMAGES = 8
JPEG_QUALITY = 85  # about 10 kB for an image of 224x224

# How far predictions may differ, as `SelfCheck.difference` measures it. In fp16 and int8, TensorRT and a CPU differ by
# their order of additions and by rounding.
TOLERANCE = {"fp32": 0.01, "fp16": 0.02, "int8": 0.05}


@dataclass(frozen=True)
class SelfCheck:
    """Some images of the dataset, and the probabilities that the exported model predicted for them."""

    jpegs: list[bytes]  # of the contract's input size
    probabilities: np.ndarray  # float [num_images, num_classes]
    precision: str  # fp32, fp16 or int8
    processor: str  # that computed the probabilities
    onnxruntime: str  # version that computed them

    @classmethod
    def create(cls, model: Path, images: list[np.ndarray], contract: Contract, precision: str) -> SelfCheck:
        """Choose some images, and predict them with an exported model.

        Args:
            model: The ONNX file.
            images: uint8 [H, W, 3], BGR, of any size. Up to NUM_IMAGES are taken, at equal distances.
            contract: The model's contract.
            precision: "fp32", "fp16" or "int8".
        """
        chosen = np.unique(np.linspace(0, len(images) - 1, NUM_IMAGES).round().astype(int))
        jpegs = [encode_jpeg(resize(images[index], contract.input_size), JPEG_QUALITY) for index in chosen]
        probabilities = predict_probabilities(model, [decode_image(jpeg) for jpeg in jpegs], contract)
        return cls(jpegs, probabilities, precision, processor_name(), onnxruntime.__version__)

    def to_json(self) -> str:
        """Return the self check as one line of JSON, with the images in base64."""
        jpegs = [base64.b64encode(jpeg).decode() for jpeg in self.jpegs]
        return json.dumps({**vars(self), "jpegs": jpegs, "probabilities": self.probabilities.round(6).tolist()})

    @classmethod
    def from_json(cls, text: str) -> SelfCheck:
        """Read what `to_json` returned. Raises ModelError for other text."""
        try:
            fields = parse_json(text)
            jpegs = [base64.b64decode(jpeg) for jpeg in fields["jpegs"]]
            check = cls(**{**fields, "jpegs": jpegs, "probabilities": np.array(fields["probabilities"], float)})
            is_valid = len(check.images) == len(check.probabilities) > 0 and check.precision in TOLERANCE
        except (ValueError, KeyError, TypeError):
            is_valid = False
        if not is_valid:
            raise ModelError("the images that a model is checked with can't be read: export the model again")
        return check

    @property
    def images(self) -> list[np.ndarray]:
        """The images to predict, uint8 [H, W, 3], BGR."""
        return [decode_image(jpeg) for jpeg in self.jpegs]

    def difference(self, probabilities: np.ndarray) -> float:
        """Return the mean over the images of the largest difference of a probability, 0 to 1.

        Args:
            probabilities: What this machine predicts for `images`, float [num_images, num_classes].
        """
        return float(np.abs(probabilities - self.probabilities).max(axis=1).mean())

    def passes(self, probabilities: np.ndarray) -> bool:
        """Return whether the difference is within the tolerance for the model's precision."""
        return self.difference(probabilities) <= TOLERANCE[self.precision]  # False for NaN
