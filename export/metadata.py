"""Read and write what an exported file says about itself: its contract, how it was made and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from teachcam import self_check
from teachcam.contract import METADATA_KEY, Contract
from teachcam.errors import ContractError, ExportError
from teachcam.export.parity import ValidationResult
from teachcam.export.targets import TARGETS
from teachcam.files import parse_json, write_atomic
from teachcam.self_check import SelfCheck

EXPORT_KEY = "teachcam.export"


def write_metadata(path: Path, contract: Contract, export_info: dict, check: SelfCheck | None = None) -> None:
    """Add metadata to an ONNX file.

    Args:
        path: The file, which is rewritten.
        contract: The model's input and output.
        export_info: How the file was made: what `exporter.export` writes, or nothing ({}).
        check: Images and their probabilities, for a check on the device that runs the model.
    """
    model = onnx.load(str(path))
    entries = {METADATA_KEY: contract.to_json(), EXPORT_KEY: json.dumps(export_info)}
    if check is not None:
        entries[self_check.METADATA_KEY] = check.to_json()
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def publish(file: Path, out: Path) -> None:
    """Copy a finished file to its place, atomically. Raises ExportError if that can't be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, file.read_bytes())
    except OSError as error:
        raise ExportError(f"can't write {out}: {error.strerror}") from None


def read_metadata(path: Path) -> tuple[Contract, dict]:
    """Return an ONNX file's contract and its `export_info` ({} if it has none).

    Raises:
        ExportError: There is no such file, or it is not a complete ONNX model.
        ContractError: The model has no contract, or one that this version can't read.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise ExportError(f"no model at {path}: export one with teachcam export") from None
    except (DecodeError, OSError):
        raise ExportError(f"{path} is not a complete ONNX model: export it again") from None
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in entries:
        raise ContractError(f"{path} has no contract: export it with teachcam export")
    try:
        export_info = parse_json(entries.get(EXPORT_KEY, "{}"))
    except ValueError:
        export_info = None
    if not isinstance(export_info, dict):
        raise ExportError(f"{path}: what it states about its export can't be read: export it again")
    return Contract.from_json(entries[METADATA_KEY]), export_info


def describe(path: Path) -> str:
    """Return an ONNX file's metadata as lines of text, a name and a value each. Raises as `read_metadata` does."""
    contract, export_info = read_metadata(path)
    try:
        lines = _describe_contract(contract) + (_describe_export(export_info) if export_info else [])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ExportError(f"{path}: what it states about itself is incomplete: export it again") from None
    return "\n".join(f"{name:<12} {value}" for name, value in lines)


def _describe_contract(contract: Contract) -> list[tuple[str, str]]:
    trained_on, (height, width) = contract.trained_on, contract.input_size
    accuracy = "not measured"
    if trained_on.validation_accuracy is not None:
        accuracy = f"{trained_on.validation_accuracy:.3f} on {trained_on.validation_images} validation images"
        if trained_on.optimistic:
            accuracy += "; optimistic, because training saw other images of the same scenes"
    return [
        ("labels", ", ".join(contract.labels)),
        ("input", f"{contract.color_order}, {width}x{height}, the whole image"),
        ("backbone", trained_on.backbone or "?"),
        ("accuracy", accuracy),
        ("calibration", f"temperature {contract.temperature:.2f}, unknown below {contract.unknown_threshold:.2f}"),
        ("dataset", trained_on.dataset or "?"),
        ("contract", f"version {contract.version}"),
    ]


def _describe_export(export_info: dict) -> list[tuple[str, str]]:
    smallest, usual, largest = export_info["profile"]
    validation, parity = export_info["validation"], export_info["validation"]["parity"]
    lines = [
        ("target", f"{export_info['target']}: {TARGETS[export_info['target']].device}"),
        ("precision", export_info["precision"]),
        ("batch size", str(usual) if smallest == largest else f"{smallest} to {largest}"),
        (
            "parity",
            f"{parity['same_label']} of {parity['num_images']} labels as in the original, largest difference of a "
            f"probability {parity['largest_difference']:.1e}",
        ),
        ("exported", export_info["date"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in export_info["versions"].items())),
        ("measured on", export_info["processor"]),
        ("check images", str(self_check.NUM_IMAGES) if export_info["check_images"] else "none"),
    ]
    origin = {"checkpoint": "checkpoint_sha256", "PyTorch": "torch"}  # a model that was taught has none
    lines += [(name, export_info[key]) for name, key in origin.items() if key in export_info]
    if validation["float_layers"]:
        lines.append(("in float", ", ".join(validation["float_layers"])))
    if export_info["precision"] != "fp32" and validation["accuracy"] is not None:
        lines.append(("measured", ValidationResult(**validation).accuracies()))
    return lines
