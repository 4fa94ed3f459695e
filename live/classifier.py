"""A trained model, ready to answer: numpy, OpenCV and ONNX Runtime are all it needs.

classifier = Classifier("runs/latest/model.onnx")
answer = classifier.classify(image)             # uint8 [H, W, 3], BGR
print(answer.label, answer.confidence)
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from collect.cli import UserError, first_line
from train.contract import METADATA_KEY, Contract, ContractError, preprocess

# The fastest first; the first that really runs the model is taken.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
UNKNOWN = "unknown"


class ModelError(UserError):
    """A model that can't be loaded or run."""


class Answer(NamedTuple):
    """What the model says of one frame."""

    label: str  # "unknown" where the confidence is below the contract's threshold
    confidence: float  # the probability of the likeliest label
    probabilities: dict[str, float]  # in the contract's order


class Classifier:
    """An ONNX model of export/to_onnx.py with its contract. Raises ModelError, or ContractError without one."""

    def __init__(self, path: Path | str, provider: str | None = None):
        """Load and warm up; `provider` (tensorrt, cuda, cpu) insists on one, else the first that works is taken."""
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"no model at {path}: export one with python export/to_onnx.py")
        if provider is not None and provider not in PROVIDERS:
            raise ModelError(f"no provider {provider!r}: {', '.join(PROVIDERS)}")
        onnxruntime.set_default_logger_severity(4)  # a provider that can't load is tried, not complained about
        names = [provider] if provider else list(PROVIDERS)
        here = onnxruntime.get_available_providers()
        for name in (name for name in names if PROVIDERS[name] in here):
            session = self._open(name)
            if session is not None:
                self.session, self.provider = session, name
                break
        else:
            raise ModelError(f"the provider {names[0]} does not work here: give another, or none")
        metadata = self.session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ContractError(
                f"{path} carries no contract, so its labels and preprocessing would be guesses: "
                "export it with python export/to_onnx.py"
            )
        self.contract = Contract.from_json(metadata[METADATA_KEY])
        self._check_graph()
        frames = self.session.get_inputs()[0]
        self._dtype = np.uint8 if frames.type == "tensor(uint8)" else np.float32  # older TensorRT takes no uint8
        height, width = self.contract.input_size
        self.classify(np.zeros((height, width, 3), np.uint8))  # the first run allocates and is slow

    def _open(self, name: str) -> onnxruntime.InferenceSession | None:
        """Open the model on one provider; None where that provider does not work on this machine."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            # Older versions of ONNX Runtime know no enable_fallback, and print to stdout as they fall back.
            with contextlib.redirect_stdout(sys.stderr if name == "cpu" else io.StringIO()):
                session = onnxruntime.InferenceSession(
                    str(self.path), options, providers=[PROVIDERS[name]], enable_fallback=0
                )
        except Exception as error:  # ONNX Runtime's errors share no base class
            if name != "cpu":
                return None
            raise ModelError(f"{self.path} is not a whole ONNX model: export it again ({first_line(error)})") from None
        # Where a provider can't load, ONNX Runtime takes the CPU and says nothing.
        return session if session.get_providers()[0] == PROVIDERS[name] else None

    def _check_graph(self) -> None:
        """Raise ModelError where the graph does not take or give what its contract says."""
        inputs = [(array.name, array.shape[1:]) for array in self.session.get_inputs()]
        types = [array.type for array in self.session.get_inputs()]
        outputs = {array.name: array.shape[1:] for array in self.session.get_outputs()}
        if (
            inputs != [("frames", [*self.contract.input_size, 3])]
            or types not in (["tensor(uint8)"], ["tensor(float)"])
            or outputs.get("probabilities") != [len(self.contract.labels)]
        ):
            raise ModelError(f"{self.path}: its graph is not what its contract says, export it again")
        batch = self.session.get_inputs()[0].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise ModelError(f"{self.path} takes {batch} frames at once: export it with --batch 1, or --dynamic-batch")

    def classify(self, image: np.ndarray) -> Answer:
        """Answer for one image, uint8 [H, W, 3] BGR."""
        frames = preprocess(image, self.contract)[None].astype(self._dtype, copy=False)
        probabilities = self.session.run(["probabilities"], {"frames": frames})[0][0]
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        if confidence != confidence:
            raise ModelError(f"{self.path} answers with NaN: train it again")
        label = self.contract.labels[best] if confidence >= self.contract.unknown_threshold else UNKNOWN
        return Answer(label, confidence, dict(zip(self.contract.labels, probabilities.tolist())))
