"""A model repository that NVIDIA Triton serves, for those who outgrow one machine."""

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

NAME = "teachcam"
WAIT = 2000  # microseconds that a frame may wait for others to be answered with
DTYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
Made = TypeVar("Made")


def export(repository: Path, most: int, make: Callable[[Path], Made]) -> Made:
    """Add a version of the model to a repository; `make` writes the ONNX file, with an open batch of up to `most`.

    The version is there whole or not at all. Raises ExportError.
    """
    model = repository / NAME
    beside = model / f".{secrets.token_hex(3)}.tmp"
    try:
        beside.mkdir(parents=True)
        made = make(beside / "model.onnx")
        contract, _ = read_metadata(beside / "model.onnx")
        write_atomic(model / "labels.txt", "".join(f"{label}\n" for label in contract.labels).encode())
        write_atomic(model / "config.pbtxt", _config(beside / "model.onnx", most).encode())
        versions = [int(path.name) for path in model.iterdir() if path.name.isdigit()]
        beside.replace(model / str(max(versions, default=0) + 1))
    except OSError as error:
        raise ExportError(f"can't write {repository}: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return made


def _config(file: Path, most: int) -> str:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    labels = ', label_filename: "labels.txt"'
    return "\n".join(
        [
            f'name: "{NAME}"',
            'platform: "onnxruntime_onnx"',
            f"max_batch_size: {most}",
            *(f"input [ {_tensor(value)} ]" for value in session.get_inputs()),
            *(
                f"output [ {_tensor(value, labels if value.name == 'probabilities' else '')} ]"
                for value in session.get_outputs()
            ),
            f"dynamic_batching {{ max_queue_delay_microseconds: {WAIT} }}",
            "",
        ]
    )


def _tensor(value, more: str = "") -> str:
    dims = ", ".join(str(size) for size in value.shape[1:])
    return f'{{ name: "{value.name}", data_type: {DTYPES[value.type]}, dims: [ {dims} ]{more} }}'
