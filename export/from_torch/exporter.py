"""Export a checkpoint to an ONNX file, after checking it for the target device and on images of the dataset."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from teachcam.contract import Contract
from teachcam.errors import ExportError, UnreadableImage, UserError
from teachcam.export.conversion import PRECISIONS, ExportConfig, convert
from teachcam.export.from_torch.graph import fold_normalization, write_onnx
from teachcam.export.metadata import read_metadata
from teachcam.export.parity import ValidationResult
from teachcam.export.quantize import MIN_CALIBRATION_IMAGES
from teachcam.export.targets import TARGETS
from teachcam.export.verify import LabeledImage, OnProgress, Validator, sample_evenly
from teachcam.files import expand, naming
from teachcam.images import read_image
from teachcam.preprocessing import shrink
from teachcam.train.model.checkpoint import Checkpoint, load_checkpoint
from teachcam.train.model.inference import InferenceModel, predict


def export(
    checkpoint: Path,
    out: Path,
    data: Path | None = None,
    config: ExportConfig | None = None,
    on_progress: OnProgress | None = None,
) -> ValidationResult:
    """Export a checkpoint to an ONNX file.

    The file is written only if the target can read it and if it predicts the same as the trained network, on up to
    200 images of the dataset.

    Args:
        checkpoint: The file that training wrote, checkpoint.pt.
        out: The ONNX file to write. It is replaced only after all checks have passed.
        data: The dataset's folder; by default the folder that the checkpoint names.
        config: Target, precision and batch size; by default fp32 for a desktop.
        on_progress: Called with what is done, in plain words, and the part of that, 0 to 1.

    Returns:
        What was measured with the file.

    Raises:
        ExportError: A check failed, or `out` can't be written.
        CheckpointError: `checkpoint` is missing or not a complete checkpoint.
    """
    checkpoint, out, config = expand(checkpoint), expand(out), config or ExportConfig()
    target = TARGETS[config.target]
    loaded = load_checkpoint(checkpoint)
    model = InferenceModel(loaded.network, loaded.contract)
    validation, calibration = _read_images(loaded, Path(loaded.data_folder) if data is None else expand(data))
    predict_images = functools.partial(predict, model, contract=loaded.contract)
    validator = Validator(loaded.contract, predict_images, validation, calibration, on_progress)
    if config.precision == "int8" and not target.for_tensorrt:
        # On a GPU normalization costs nothing, and images centered on zero use more of int8's symmetric range.
        model = fold_normalization(model, loaded.contract.input_size)
    origin: dict[str, object] = {"torch": torch.__version__}
    origin["checkpoint_sha256"] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    with tempfile.TemporaryDirectory() as folder, naming(folder):
        source = Path(folder) / "fp32.onnx"
        write_onnx(source, model, loaded.contract.input_size, target, config.fixed_batch)
        return convert(source, out, validator, config, origin)


def read_export_config(file: Path) -> ExportConfig | None:
    """Return the config that an ONNX file was exported with; None if it can't be read."""
    try:
        _, export_info = read_metadata(file)
    except UserError:
        return None
    names = {entry.name for entry in fields(ExportConfig)}
    config = ExportConfig(**{name: value for name, value in export_info.items() if name in names})
    return config if config.target in TARGETS and config.precision in PRECISIONS else None


def _read_images(checkpoint: Checkpoint, folder: Path) -> tuple[list[LabeledImage], list[LabeledImage]]:
    """Return validation images, and training images for the calibration. Raises ExportError if there are none."""
    validation, calibration = (
        _read(sample_evenly(files), folder, checkpoint.contract)
        for files in (checkpoint.validation_files, checkpoint.training_files)
    )
    if len(calibration) < MIN_CALIBRATION_IMAGES:  # after cross-validation all are validation images
        calibration += validation[1::2]
        validation = validation[::2]
    if not validation + calibration:
        raise ExportError(
            f"none of the images that the model was trained on is in {folder}, so the export can't be verified: "
            "give their folder with teachcam export --data DIR"
        )
    return validation, calibration


def _read(files: list[tuple[str, str]], folder: Path, contract: Contract) -> list[LabeledImage]:
    """Read images; an image is shrunk as far as `preprocess` allows, to save memory."""
    images: list[tuple[np.ndarray, str]] = []
    for label, name in files:
        try:
            images.append((shrink(read_image(folder / name), contract.input_size), label))
        except UnreadableImage:
            continue  # moved or deleted since training; the others are enough
    return images
