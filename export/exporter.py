"""Export a checkpoint to an ONNX file, after checking it for the target device and on images of the dataset."""

from __future__ import annotations

import hashlib
import logging
import platform
import tempfile
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from teachcam.errors import ExportError, UserError
from teachcam.export.graph import fold_normalization, write_onnx
from teachcam.export.metadata import publish, read_metadata, write_metadata
from teachcam.export.parity import TOLERANCE, ValidationResult
from teachcam.export.quantize import rank_layers_by_error, to_half, to_int8
from teachcam.export.saturation import find_saturating_layers
from teachcam.export.targets import TARGETS, Target, lint
from teachcam.export.verify import MAX_ACCURACY_DROP, Validator
from teachcam.files import expand
from teachcam.onnx_session import make_batches
from teachcam.processor import processor_name
from teachcam.self_check import SelfCheck
from teachcam.train.model.checkpoint import load_checkpoint

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


def export(
    checkpoint: Path, out: Path, data: Path | None = None, config: ExportConfig | None = None
) -> ValidationResult:
    """Export a checkpoint to an ONNX file.

    The file is written only if the target can read it and if it predicts the same as the trained network, on up to
    200 images of the dataset.

    Args:
        checkpoint: The file that training wrote, checkpoint.pt.
        out: The ONNX file to write. It is replaced only after all checks have passed.
        data: The dataset's folder; by default the folder that the checkpoint names.
        config: Target, precision and batch size; by default fp32 for a desktop.

    Returns:
        What was measured with the file.

    Raises:
        ExportError: A check failed, or `out` can't be written.
        CheckpointError: `checkpoint` is missing or not a complete checkpoint.
    """
    checkpoint, out, config = expand(checkpoint), expand(out), config or ExportConfig()
    target = TARGETS[config.target]
    loaded = load_checkpoint(checkpoint)
    validator = Validator(loaded, None if data is None else expand(data))
    with tempfile.TemporaryDirectory() as folder:
        if config.precision == "int8":
            file, float_layers = _write_int8(Path(folder), validator, config)
        else:
            file, float_layers = _write_float(Path(folder), validator, config), []
        _check_graph(onnx.load(str(file)), target)
        validation = validator.validate(file, float_layers)
        if config.precision in TOLERANCE:
            validation.parity.require(TOLERANCE[config.precision])
        check = None
        if config.check_images:
            check = SelfCheck.create(file, validator.images, loaded.contract, config.precision)
        write_metadata(file, loaded.contract, _export_info(checkpoint, config, validation), check)
        publish(file, out)
    return validation


def read_export_config(file: Path) -> ExportConfig | None:
    """Return the config that an ONNX file was exported with; None if it can't be read."""
    try:
        _, export_info = read_metadata(file)
    except UserError:
        return None
    names = {entry.name for entry in fields(ExportConfig)}
    return ExportConfig(**{name: value for name, value in export_info.items() if name in names})


def _write_float(folder: Path, validator: Validator, config: ExportConfig) -> Path:
    """Write an fp32 or fp16 file and return its path."""
    file = folder / "fp32.onnx"
    write_onnx(file, validator.model, validator.contract.input_size, TARGETS[config.target], config.fixed_batch)
    if config.precision == "fp16":
        file = to_half(file, folder / "fp16.onnx")
    return file


def _write_int8(folder: Path, validator: Validator, config: ExportConfig) -> tuple[Path, list[str]]:
    """Write an int8 file and return its path, and the names of the layers that stay in float for the accuracy.

    Layers with the largest quantization error go back to float, 1, 2, 4, ... of them, until the accuracy suffices.
    """
    target, size = TARGETS[config.target], validator.contract.input_size
    if not validator.validation and not config.allow_accuracy_drop:
        raise ExportError(
            "int8 needs validation images to measure its accuracy: record in more places, or give --allow-accuracy-drop"
        )
    # On a GPU normalization costs nothing, and images centered on zero use more of int8's symmetric range.
    model = validator.model if target.operators else fold_normalization(validator.model, size)
    source, file = folder / "fp32.onnx", folder / "int8.onnx"
    write_onnx(source, model, size, target, config.fixed_batch)
    dtype = np.uint8 if target.uint8_input else np.float32
    images = [image for image, _ in validator.calibration]
    batches = make_batches(images, validator.contract, dtype, config.fixed_batch or 1)
    to_int8(source, file, batches, target)
    drop = validator.accuracy_drop(file)
    if drop <= MAX_ACCURACY_DROP or config.allow_accuracy_drop:
        return file, []
    layers = rank_layers_by_error(source, file, batches[:4])
    count = 1
    while count <= len(layers) / 2:
        logger.info("int8 loses %.1f points of accuracy: trying with %d layers in float", 100 * drop, count)
        to_int8(source, file, batches, target, float_layers=layers[:count])
        drop = validator.accuracy_drop(file)
        if drop <= MAX_ACCURACY_DROP:
            return file, layers[:count]
        count *= 2
    raise ExportError(
        f"int8 loses {100 * drop:.1f} points of accuracy on {len(validator.validation)} validation images, even with "
        "half of its layers in float; no file was written: export fp16, or give --allow-accuracy-drop"
    )


def _check_graph(model: onnx.ModelProto, target: Target) -> None:
    """Raise ExportError if a graph does not run on the target, or not alike on all of its processors."""
    if problems := lint(model, target):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ExportError(f"{problems[0]}{more}; no file was written")
    if target.operators is None and (layers := find_saturating_layers(model)):
        raise ExportError(
            f"int8 of {layers[0]} (and {len(layers) - 1} more layers) can overflow on processors without VNNI, "
            "which would then predict something else; no file was written: export fp32"
        )


def _export_info(checkpoint: Path, config: ExportConfig, validation: ValidationResult) -> dict:
    """Return how the file was made and what was measured with it, for its metadata."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "processor": processor_name(),  # on which the file was validated, by ONNX Runtime's CPU provider
        **asdict(config),
        # TensorRT's optimization profile: the smallest, the usual and the largest batch size.
        "profile": [1 if config.dynamic_batch else config.batch_size, config.batch_size, config.batch_size],
        "validation": asdict(validation),
    }
