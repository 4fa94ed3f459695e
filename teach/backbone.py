"""The backbone of teaching: an image in, its features out. It needs ONNX Runtime and no torch."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np

from teachcam.cli import first_line
from teachcam.contract import Contract
from teachcam.errors import ModelError
from teachcam.live.model_runner import LoadedModel, ModelRunner
from teachcam.live.tuning import choose_config
from teachcam.onnx_session import open_single_threaded
from teachcam.preprocessing import preprocess
from teachcam.teach.lite0 import FEATURE_SIZE, INPUT_SIZE, write_lite0


class Backbone:
    """EfficientNet-Lite0 with ImageNet weights. Each thread needs its own: see `clone_for_thread`.

    Attributes:
        path: The ONNX file.
        provider: The execution provider that runs it: "tensorrt", "cuda" or "cpu".
        identity: A hash of the file's content.
        contract: The input that it expects; it has no labels.
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
        self.path = folder / f"{self.name}.onnx"
        write_lite0(self.path)
        self.identity = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        self._model = LoadedModel(choose_config(self.path, "features", provider, tune))
        self.provider = self._model.provider
        self._runner = self._model.make_runner("features")

    def clone_for_thread(self) -> Backbone:
        """Return a backbone for another thread. It shares the loaded model and has its own buffers."""
        clone = copy.copy(self)
        clone._runner = self._model.make_runner("features")
        return clone

    def clone_for_background(self) -> Backbone:
        """Return a backbone for a thread of low priority. On the CPU it computes in that thread alone."""
        clone = self.clone_for_thread()
        if self.provider == "cpu":
            clone._runner = ModelRunner(open_single_threaded(self.path), "cpu", "features")
        return clone

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the features of an image, uint8 [H, W, 3] BGR of any size, as float32 [feature_size]."""
        return self.run(preprocess(image, self.contract)).copy()

    def run(self, model_input: np.ndarray) -> np.ndarray:
        """Return the features of a preprocessed image, float32 [feature_size]. The next call overwrites them.

        Args:
            model_input: uint8 [height, width, 3], as `preprocess` returns it.

        Raises:
            ModelError: The model failed.
        """
        try:
            return self._runner(model_input)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{self.path} failed on {self.provider}: {first_line(error)}") from None
