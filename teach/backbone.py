"""The backbone of teaching: an image in, its features out. It needs ONNX Runtime and no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from teachcam.contract import Contract
from teachcam.live.onnx_model import ModelRunner, OnnxModel
from teachcam.live.tuning import choose_config
from teachcam.onnx_session import open_single_threaded
from teachcam.preprocessing import preprocess
from teachcam.teach.lite0 import FEATURE_SIZE, INPUT_SIZE, write_lite0


class Backbone(OnnxModel):
    """EfficientNet-Lite0 with ImageNet weights. Each thread needs its own: see `clone_for_thread`.

    Attributes:
        identity: A hash of the file's content.
        contract: The input that it expects; it has no labels.
        path, provider, ort_session: As in OnnxModel.
    """

    name = "efficientnet_lite0"
    feature_size = FEATURE_SIZE
    contract = Contract(labels=(), input_size=(INPUT_SIZE, INPUT_SIZE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def __init__(self, folder: Path, provider: str | None = None, tune: bool = False):
        """Open the backbone, after its file is written if it is not there.

        Args:
            folder: Where its file is kept.
            provider: tensorrt, cuda or cpu. By default as it was tuned, else the first of them that works here.
            tune: Measure now what is fastest here, unless it was done before.

        Raises:
            UserError: The package with the weights is missing, or the file can't be written.
            ModelError: The file can't be run.
        """
        path = folder / f"{self.name}.onnx"
        write_lite0(path)
        self.identity = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        super().__init__(choose_config(path, "features", provider, tune), "features")

    def clone_for_background(self) -> Backbone:
        """Return a backbone for a thread of low priority. On the CPU it computes in that thread alone."""
        clone = self.clone_for_thread()
        if self.provider == "cpu":
            clone._runner = ModelRunner(open_single_threaded(self.path), "cpu", "features")
        return clone

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the features of an image, uint8 [H, W, 3] BGR of any size, as float32 [feature_size]."""
        return self.run(preprocess(image, self.contract)).copy()
