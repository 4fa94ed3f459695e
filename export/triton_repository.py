"""Write a model repository for NVIDIA Triton, a server for many clients."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import onnxruntime

from teachcam.errors import ExportError
from teachcam.export.metadata import read_metadata
from teachcam.files import write_atomic

MODEL_NAME = "teachcam"
MAX_QUEUE_DELAY = 2000  # microseconds that Triton holds a request back, to answer it together with others
DTYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
T = TypeVar("T")


def add_version(repository: Path, max_batch_size: int, write_model: Callable[[Path], T]) -> T:
    """Add a version of the model to a repository. The version appears only when it is complete.

    Args:
        repository: The repository's folder; it is made if it does not exist.
        max_batch_size: The largest batch that the model takes.
        write_model: Writes an ONNX file with a dynamic batch to the path that it is given.

    Returns:
        What `write_model` returned.

    Raises:
        ExportError: The repository can't be written.
    """
    model = repository / MODEL_NAME
    temporary = model / f".{secrets.token_hex(3)}.tmp"
    file = temporary / "model.onnx"
    try:
        temporary.mkdir(parents=True)
        result = write_model(file)
        contract, _ = read_metadata(file)
        write_atomic(model / "labels.txt", "".join(f"{label}\n" for label in contract.labels).encode())
        write_atomic(model / "config.pbtxt", _config(file, max_batch_size).encode())
        versions = [int(path.name) for path in model.iterdir() if path.name.isdigit()]
        temporary.replace(model / str(max(versions, default=0) + 1))
    except OSError as error:
        raise ExportError(f"can't write {repository}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return result


def _config(file: Path, max_batch_size: int) -> str:
    """Return the text of Triton's config.pbtxt for an ONNX file."""
    ort_session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    label_file = ', label_filename: "labels.txt"'
    lines = [
        f'name: "{MODEL_NAME}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch_size}",
        *(f"input [ {_tensor(value)} ]" for value in ort_session.get_inputs()),
        *(
            f"output [ {_tensor(value, label_file if value.name == 'probabilities' else '')} ]"
            for value in ort_session.get_outputs()
        ),
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY} }}",
        "",
    ]
    return "\n".join(lines)


def _tensor(value: onnxruntime.NodeArg, extra: str = "") -> str:
    """Return an input or output in the syntax of config.pbtxt, without its batch dimension."""
    dims = ", ".join(str(size) for size in value.shape[1:])
    return f'{{ name: "{value.name}", data_type: {DTYPES[value.type]}, dims: [ {dims} ]{extra} }}'
