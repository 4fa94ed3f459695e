"""A trained model, ready to answer: numpy, OpenCV and ONNX Runtime are all it needs.

classifier = Classifier("runs/latest/model.onnx")
answer = classifier.classify(image)             # uint8 [H, W, 3], BGR
print(answer.label, answer.confidence)

for answer in classifier.predict_stream(Camera(0)):      # the same for each frame, steadied
    print(answer.label, answer.confidence)
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import numpy as np
import onnxruntime

from teachcam.cli import first_line
from teachcam.contract import METADATA_KEY, Contract
from teachcam.errors import ContractError, ModelError
from teachcam.live.prediction import Prediction, Smoother, to_prediction, usual_smoothing
from teachcam.onnx_session import open_session
from teachcam.preprocessing import preprocess
from teachcam.self_check import METADATA_KEY as CHECK_KEY
from teachcam.self_check import SelfCheck

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera


class Classifier:
    """An ONNX model of export/to_onnx.py with its contract, for one thread at a time.

    Raises ModelError, or ContractError for a model without one.
    """

    def __init__(self, path: Path | str, provider: str | None = None):
        """Load and warm up; `provider` (tensorrt, cuda, cpu) insists on one, else the first that works is taken."""
        self.path = Path(path)
        before = _threads()
        self.session, self.provider = open_session(self.path, provider)
        self._taken = pinned_cores(_threads() - before)  # by threads of the session
        metadata = self.session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ContractError(
                f"{path} carries no contract, so its labels and preprocessing would be guesses: "
                "export it with python export/to_onnx.py"
            )
        self.contract = Contract.from_json(metadata[METADATA_KEY])
        self._check_graph()
        self._bind()
        height, width = self.contract.input_size
        self.classify(np.zeros((height, width, 3), np.uint8))  # raises where it answers with no probabilities

    def _check_graph(self) -> None:
        """Raise ModelError where the graph does not take or give what its contract says."""
        inputs = [(array.name, array.shape[1:]) for array in self.session.get_inputs()]
        types = [array.type for array in self.session.get_inputs()]
        outputs = {array.name: array.shape[1:] for array in self.session.get_outputs()}
        if (
            inputs != [("images", [*self.contract.input_size, 3])]
            or types not in (["tensor(uint8)"], ["tensor(float)"])
            or outputs.get("probabilities") != [len(self.contract.labels)]
        ):
            raise ModelError(f"{self.path}: its graph is not what its contract says, export it again")
        batch = self.session.get_inputs()[0].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise ModelError(f"{self.path} takes {batch} frames at once: export it with --batch 1, or --dynamic-batch")

    def _bind(self) -> None:
        """Bind the input and the output to memory of their own, so that no frame allocates any."""
        frames = self.session.get_inputs()[0]
        dtype = np.uint8 if frames.type == "tensor(uint8)" else np.float32  # older TensorRT takes no uint8
        device = "cpu" if self.provider == "cpu" else "cuda"
        self._frames = np.zeros((1, *self.contract.input_size, 3), dtype)
        self._probabilities = np.zeros((1, len(self.contract.labels)), np.float32)
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(self._frames, device, 0)  # shared, if on the CPU
        output = onnxruntime.OrtValue.ortvalue_from_numpy(self._probabilities)
        self._binding = self.session.io_binding()
        self._binding.bind_ortvalue_input("images", self._input)
        self._binding.bind_ortvalue_output("probabilities", output)

    def twin(self) -> Classifier:
        """Return another one of the same session, for another thread."""
        twin = copy.copy(self)
        twin._bind()
        return twin

    def probabilities(self, frame: np.ndarray) -> np.ndarray:
        """Run the model on what `preprocess` gives; return float32 [labels], good until the next call.

        Raises ModelError where it fails.
        """
        self._frames[0] = frame
        if self.provider != "cpu":
            self._input.update_inplace(self._frames)
        try:
            self._run()
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{self.path} failed on {self.provider}: {first_line(error)}") from None
        return self._probabilities[0]

    def _run(self) -> None:
        """Run the session, on a core to which none of its threads is tied, if there is one.

        ONNX Runtime ties all but the caller's to a core. On one of theirs the caller and that thread would take turns
        of 4 ms, while another core idles.
        """
        cores = os.sched_getaffinity(0) if self._taken else set()
        free = cores - self._taken
        if free:
            os.sched_setaffinity(0, free)
        try:
            self.session.run_with_iobinding(self._binding)
        finally:
            if free:
                os.sched_setaffinity(0, cores)  # or threads and programs that this one starts would inherit it

    def self_check(self) -> float | None:
        """Return how far it is from its answers where it was exported, to the images that travel with it; None if none.

        It is the mean of the largest difference of a probability. Raises ModelError where that is too much.
        """
        text = self.session.get_modelmeta().custom_metadata_map.get(CHECK_KEY)
        if text is None:
            return None
        check = SelfCheck.from_json(text)
        inputs = [preprocess(image, self.contract) for image in check.images]
        answers = np.stack([self.probabilities(model_input).copy() for model_input in inputs])
        if not check.passes(answers):
            raise ModelError(
                f"{self.path} answers otherwise here than where it was exported (on {check.processor}, ONNX Runtime "
                f"{check.onnxruntime}): probabilities differ by {check.difference(answers):.2f}; "
                "export it on this machine, or in fp32"
            )
        return check.difference(answers)

    def classify(self, image: np.ndarray) -> Prediction:
        """Answer for one image, uint8 [H, W, 3] BGR. Raises ModelError where the model fails."""
        probabilities = self.probabilities(preprocess(image, self.contract)).tolist()
        wrong = [value for value in probabilities if not -0.01 <= value <= 1.01]  # NaN is neither
        if wrong:
            raise ModelError(f"{self.path} answers with {wrong[0]:g}, no probability: train it again")
        return to_prediction(dict(zip(self.contract.labels, probabilities)), self.contract.unknown_threshold)

    def predict_stream(self, camera: Camera, smoothing: float | None = None) -> Iterator[Prediction]:
        """Answer each frame of a camera until it ends, steadied over `smoothing` seconds (0: not; None: as usual)."""
        smooth = Smoother(self.contract.unknown_threshold, usual_smoothing(camera) if smoothing is None else smoothing)
        for frame in camera:
            yield smooth(self.classify(frame.image), frame.time)


def _threads() -> set[int]:
    """Return the ids of this process's threads (Linux; elsewhere none: its cores can't be chosen)."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()} if sys.platform == "linux" else set()


def pinned_cores(threads: set[int]) -> set[int]:
    """Return the cores on which any of these threads may run."""
    cores = set()
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            cores |= os.sched_getaffinity(thread)
    return cores
