"""Execution providers: which of ONNX Runtime's ways to run a file really works on this machine.

session, provider = open_session("model.onnx")
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from teachcam.cli import first_line
from teachcam.contract import Contract
from teachcam.errors import ModelError
from teachcam.preprocessing import preprocess

SOME = 3  # frames at once, where a file leaves the batch open

# The fastest first; the first that really runs the model is taken.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# A CPU without VNNI adds products of int8 in 16 bits, and clips what does not fit. This session option avoids that.
EXACT_INT8 = "session.x64quantprecision"
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_exactly(path: Path | str) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU so that int8 is computed without clipping, at up to twice the time."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(EXACT_INT8, "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_session(path: Path, provider: str | None = None) -> tuple[onnxruntime.InferenceSession, str]:
    """Open an ONNX file on one provider (tensorrt, cuda, cpu), or on the first that runs it; return its name too.

    It has run once, so the next time is no slower than those after. Raises ModelError where there is no such file or
    provider, or it does not run here.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}: export one with python export/to_onnx.py")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: you may not read it, ask its owner or chmod a+r it")
    if provider is not None and provider not in PROVIDERS:
        raise ModelError(f"no provider {provider!r}: {', '.join(PROVIDERS)}")
    onnxruntime.set_default_logger_severity(4)  # a provider that can't load is tried, not complained about
    names = [provider] if provider else list(PROVIDERS)
    here = onnxruntime.get_available_providers()
    for name in (name for name in names if PROVIDERS[name] in here):
        session = _open(path, name)
        if session is not None and name == "cpu" and _is_int8_for_tensorrt(session):
            session = _open(path, name, exact_int8=True)
        if session is not None:
            return session, name
    raise ModelError(f"the provider {names[0]} does not work here: give another, or none")


def _is_int8_for_tensorrt(session: onnxruntime.InferenceSession) -> bool:
    """Return whether a file has int8 weights of 8 bits, as TensorRT takes them; those of `--target desktop` have 7."""
    record = json.loads(session.get_modelmeta().custom_metadata_map.get("teachcam.export", "{}"))
    return record.get("precision") == "int8" and record.get("target") != "desktop"


def _open(path: Path, name: str, exact_int8: bool = False) -> onnxruntime.InferenceSession | None:
    """Open it on one provider; None where that provider does not work on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Its threads go on spinning for the next run otherwise: at 30 FPS that is a whole core, taken from the grabber,
    # for 0.1 ms of 4 (SqueezeNet, two cores). More or fewer threads, the arena and memory patterns changed nothing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if exact_int8:
        options.add_session_config_entry(EXACT_INT8, "1")
    settings = {}
    if name == "tensorrt":  # building an engine takes minutes: it is kept beside the model
        settings = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(path.parent / "engines")}
    try:
        # Older versions of ONNX Runtime know no enable_fallback, and print to stdout as they fall back.
        with contextlib.redirect_stdout(sys.stderr if name == "cpu" else io.StringIO()):
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[(PROVIDERS[name], settings)], enable_fallback=0
            )
            # Where a provider can't load, ONNX Runtime takes the CPU and says nothing.
            if session.get_providers()[0] != PROVIDERS[name]:
                return None
            _run_once(session)  # what is wrong with a GPU's libraries or its memory shows only now
    except Exception as error:  # ONNX Runtime's errors share no base class
        if name != "cpu":
            return None
        raise ModelError(
            f"{path} is not a whole ONNX model, or can't be run: export it again ({first_line(error)})"
        ) from None
    return session


def _run_once(session: onnxruntime.InferenceSession) -> None:
    inputs = {}
    for array in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in array.shape]
        inputs[array.name] = np.zeros(shape, DTYPES.get(array.type, np.float32))
    session.run(None, inputs)


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
