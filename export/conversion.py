"""Convert a float32 graph to a model file: in another precision, checked for its device, and with its metadata.

It needs no torch, so a device can do it. `export/from_torch/` makes the graph from a checkpoint, and teaching makes its
own.
"""

from __future__ import annotations

import logging
import platform
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from teachcam.errors import ExportError
from teachcam.export.metadata import publish, write_metadata
from teachcam.export.parity import TOLERANCE, ValidationResult
from teachcam.export.quantize import rank_layers_by_error, to_half, to_int8
from teachcam.export.saturation import find_saturating_layers
from teachcam.export.targets import TARGETS, Target, lint
from teachcam.export.verify import MAX_ACCURACY_DROP, Validator
from teachcam.files import naming
from teachcam.onnx_session import make_batches
from teachcam.processor import processor_name
from teachcam.self_check import SelfCheck

PRECISIONS = ("fp32", "fp16", "int8")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportConfig:
    """The options of an export.

    Attributes:
        target: The device that the file is for, a key of `TARGETS`.
        precision: "fp32", "fp16" or "int8".
        batch_size: Number of images that the model takes at once.
        dynamic_batch: Accept any number of images from 1 to `batch_size`, in place of exactly `batch_size`.
        allow_accuracy_drop: Write int8 even if it loses more than one percentage point of accuracy.
        check_images: Store a few images of the dataset in the file, so that the device that runs it can check that
            it gives the same answers there.
    """

    target: str = "desktop"
    precision: str = "fp32"
    batch_size: int = 1
    dynamic_batch: bool = False
    allow_accuracy_drop: bool = False
    check_images: bool = True

    @property
    def fixed_batch(self) -> int | None:
        """The batch size in the graph's input shape; None for a dynamic batch."""
        return None if self.dynamic_batch else self.batch_size


def convert(
    source: Path, out: Path, validator: Validator, config: ExportConfig, origin: dict[str, object]
) -> ValidationResult:
    """Convert a float32 graph to a model file.

    The file is written only if the target can read it, and if it predicts the same on the validator's images.

    Args:
        source: The graph: its input is for the target, its outputs are `probabilities` and maybe `features`.
        out: The ONNX file to write. It is replaced only after all checks have passed.
        validator: Has the images, and what the model should predict for them; and what the progress is reported to.
        config: Target, precision and batch size.
        origin: What the file's metadata says about where the graph came from, beside the options and the versions.

    Returns:
        What was measured with the file.

    Raises:
        ExportError: A check failed, or `out` can't be written.
    """
    with tempfile.TemporaryDirectory() as folder, naming(folder):
        file, float_layers = Path(folder) / "model.onnx", []
        if config.precision == "int8":
            float_layers = _write_int8(source, file, validator, config)
        elif config.precision == "fp16":
            to_half(source, file)
        else:
            file.write_bytes(source.read_bytes())
        _check_graph(onnx.load(str(file)), TARGETS[config.target])
        validation = validator.validate(file, float_layers)
        if config.precision in TOLERANCE:
            validation.parity.require(TOLERANCE[config.precision])
        check = None
        if config.check_images:
            check = SelfCheck.create(file, validator.images, validator.contract, config.precision)
        write_metadata(file, validator.contract, {**_export_info(config, validation), **origin}, check)
        publish(file, out)
    return validation


def _write_int8(source: Path, file: Path, validator: Validator, config: ExportConfig) -> list[str]:
    """Write an int8 file, and return the names of the layers that stay in float for the accuracy.

    Layers with the largest quantization error go back to float, 1, 2, 4, ... of them, until the accuracy suffices.
    """
    target = TARGETS[config.target]
    if not validator.validation and not config.allow_accuracy_drop:
        raise ExportError(
            "int8 needs validation images to measure its accuracy",
            "record in more places, or give --allow-accuracy-drop",
        )
    dtype = np.uint8 if target.uint8_input else np.float32
    images = [image for image, _ in validator.calibration]
    batches = make_batches(images, validator.contract, dtype, config.fixed_batch or 1)
    to_int8(source, file, batches, target, on_progress=validator.on_progress)
    drop = validator.accuracy_drop(file)
    if drop <= MAX_ACCURACY_DROP or config.allow_accuracy_drop:
        return []
    layers = rank_layers_by_error(source, file, batches[:4])
    count = 1
    while count <= len(layers) / 2:
        loss = _describe_drop(drop, validator)
        logger.info("%s: trying with %d layers in float", loss, count)
        to_int8(source, file, batches, target, layers[:count], validator.on_progress)
        drop = validator.accuracy_drop(file)
        if drop <= MAX_ACCURACY_DROP:
            return layers[:count]
        count *= 2
    raise ExportError(
        f"{_describe_drop(drop, validator)}, even with half of its layers in float; no file was written",
        "export fp16, or give --allow-accuracy-drop",
    )


def _describe_drop(drop: float, validator: Validator) -> str:
    """Return what `Validator.accuracy_drop` measured, in words: it may be either of two things."""
    percent = f"{100 * drop:.1f}"
    return (
        f"int8 loses {percent} points of accuracy on {len(validator.validation)} validation images, or changes "
        f"{percent} % of the labels"
    )


def _check_graph(model: onnx.ModelProto, target: Target) -> None:
    """Raise ExportError if a graph does not run on the target, or not alike on all of its processors."""
    if problems := lint(model, target):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ExportError(f"{problems[0]}{more}; no file was written")
    if not target.for_tensorrt and (layers := find_saturating_layers(model)):
        raise ExportError(
            f"int8 of {layers[0]} (and {len(layers) - 1} more layers) can overflow on processors without VNNI, "
            "which would then predict something else; no file was written: export fp32"
        )


def _export_info(config: ExportConfig, validation: ValidationResult) -> dict[str, object]:
    """Return how the file was made and what was measured with it, for its metadata."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "processor": processor_name(),  # on which the file was validated, by ONNX Runtime's CPU provider
        **asdict(config),
        "for_tensorrt": TARGETS[config.target].for_tensorrt,
        # TensorRT's optimization profile: the smallest, the usual and the largest batch size.
        "profile": [1 if config.dynamic_batch else config.batch_size, config.batch_size, config.batch_size],
        "validation": asdict(validation),
    }
