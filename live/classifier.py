"""Classify images with an exported model. Needs numpy, OpenCV and ONNX Runtime only.

classifier = Classifier("runs/latest/model.onnx")
prediction = classifier.classify(image)                  # uint8 [H, W, 3], BGR
print(prediction.label, prediction.confidence)

for prediction in classifier.predict_stream(Camera(0)):  # the same for each frame of a camera, smoothed
    print(prediction.label, prediction.confidence)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import numpy as np

from teachcam.contract import METADATA_KEY, Contract
from teachcam.errors import ContractError, ModelError
from teachcam.files import expand
from teachcam.live.onnx_model import OnnxModel, SessionConfig
from teachcam.live.prediction import Prediction, Smoother, default_smoothing, to_prediction
from teachcam.onnx_session import read_metadata_map
from teachcam.preprocessing import preprocess
from teachcam.runs import resolve_latest
from teachcam.self_check import METADATA_KEY as CHECK_KEY
from teachcam.self_check import SelfCheck

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera


class Classifier(OnnxModel):
    """An ONNX model written by export/to_onnx.py, loaded and ready to classify images.

    One thread may use it at a time. Each further thread needs its own `clone_for_thread`.

    Attributes:
        contract: The labels, the input size and what else the model states about itself.
        path, provider, ort_session: As in OnnxModel.
    """

    def __init__(
        self,
        path: Path | str,
        provider: str | None = None,
        threads: int | None = None,
        busy_threads: int | None = None,
    ):
        """Load a model and run it once to warm it up.

        Args:
            path: An ONNX file. `runs/latest/model.onnx` is the newest run's.
            provider: "tensorrt", "cuda" or "cpu". By default the first of them that works on this machine.
            threads: Number of CPU threads. By default one for every core.
            busy_threads: Number of CPU threads while other programs make `threads` slower. By default the same.

        Raises:
            ModelError: The file can't be read or run.
            ContractError: The file has no contract, or one of another version.
        """
        super().__init__(SessionConfig(resolve_latest(expand(path)), provider, threads, busy_threads), "probabilities")
        metadata = read_metadata_map(self.ort_session)
        if METADATA_KEY not in metadata:
            raise ContractError(
                f"{path} carries no contract, so its labels and its preprocessing are unknown: "
                "export it with teachcam export"
            )
        self.contract = Contract.from_json(metadata[METADATA_KEY])
        self._check_graph()
        height, width = self.contract.input_size
        self.classify(np.zeros((height, width, 3), np.uint8))  # raises if the outputs are not probabilities

    def _check_graph(self) -> None:
        """Raise ModelError if the graph's inputs or outputs contradict the contract."""
        inputs = [(value.name, value.shape[1:]) for value in self.ort_session.get_inputs()]
        types = [value.type for value in self.ort_session.get_inputs()]
        outputs = {value.name: value.shape[1:] for value in self.ort_session.get_outputs()}
        if (
            inputs != [("images", [*self.contract.input_size, 3])]
            or types not in (["tensor(uint8)"], ["tensor(float)"])
            or outputs.get("probabilities") != [len(self.contract.labels)]
        ):
            raise ModelError(f"{self.path}: its inputs and outputs contradict its contract: export it again")
        batch_size = self.ort_session.get_inputs()[0].shape[0]
        if isinstance(batch_size, int) and batch_size != 1:
            raise ModelError(
                f"{self.path} takes {batch_size} images at once: export it with --batch-size 1, or --dynamic-batch"
            )

    def predict_probabilities(self, model_input: np.ndarray) -> np.ndarray:
        """Return the probabilities of the labels in the contract's order, float32 [labels], as `run` does."""
        return self.run(model_input)

    def self_check(self) -> float | None:
        """Compare the model's predictions on this machine with those from where it was exported.

        The images for it, and the expected probabilities, are stored in the ONNX file.

        Returns:
            The mean over the images of the largest difference of a probability, or None if the file has no images.

        Raises:
            ModelError: The difference is larger than the model's precision explains.
        """
        text = read_metadata_map(self.ort_session).get(CHECK_KEY)
        if text is None:
            return None
        check = SelfCheck.from_json(text)
        inputs = [preprocess(image, self.contract) for image in check.images]
        probabilities = np.stack([self.predict_probabilities(model_input).copy() for model_input in inputs])
        if not check.passes(probabilities):
            raise ModelError(
                f"{self.path} predicts differently here than where it was exported (on {check.processor}, ONNX Runtime "
                f"{check.onnxruntime}): probabilities differ by {check.difference(probabilities):.2f}; "
                "export it on this machine, or in fp32"
            )
        return check.difference(probabilities)

    def classify(self, image: np.ndarray) -> Prediction:
        """Classify one image.

        Args:
            image: uint8 [H, W, 3], BGR, of any size.

        Raises:
            ModelError: The model failed, or its outputs are not probabilities.
        """
        probabilities = self.predict_probabilities(preprocess(image, self.contract)).tolist()
        invalid = [value for value in probabilities if not -0.01 <= value <= 1.01]  # True for NaN; fp16 rounds
        if invalid:
            raise ModelError(f"{self.path} returned {invalid[0]:g} as a probability: train it again")
        return to_prediction(dict(zip(self.contract.labels, probabilities)), self.contract.unknown_threshold)

    def predict_stream(self, camera: Camera, smoothing: float | None = None) -> Iterator[Prediction]:
        """Classify each frame of a camera until it ends.

        Args:
            camera: An open camera, video file or folder of images.
            smoothing: Seconds over which predictions are averaged. 0 turns it off, None means `default_smoothing`.

        Yields:
            The smoothed prediction for each frame.

        Raises:
            CameraError: The camera failed.
            ModelError: The model failed.
        """
        seconds = default_smoothing(camera) if smoothing is None else smoothing
        smooth = Smoother(self.contract.unknown_threshold, seconds)
        for frame in camera:
            yield smooth(self.classify(frame.image), frame.time)
