"""What an exported file says of itself: the contract, how it was made, and what was proved of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from teachcam import self_check
from teachcam.contract import METADATA_KEY, Contract
from teachcam.errors import ContractError, ExportError
from teachcam.export.targets import TARGETS
from teachcam.self_check import SelfCheck

EXPORT_KEY = "teachcam.export"


def write_metadata(path: Path, contract: Contract, record: dict, check: SelfCheck | None = None) -> None:
    """Write the contract, the record of an export, and images to check it by, into a file."""
    graph = onnx.load(str(path))
    entries = {METADATA_KEY: contract.to_json(), EXPORT_KEY: json.dumps(record)}
    if check is not None:
        entries[self_check.METADATA_KEY] = check.to_json()
    onnx.helper.set_model_props(graph, entries)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def read_metadata(path: Path) -> tuple[Contract, dict]:
    """Read what `write_metadata` wrote. Raises ExportError or ContractError."""
    try:
        graph = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise ExportError(f"no model at {path}: export one with python export/to_onnx.py") from None
    except (DecodeError, OSError):
        raise ExportError(f"{path} is not a whole ONNX model: export it again") from None
    entries = {entry.key: entry.value for entry in graph.metadata_props}
    if METADATA_KEY not in entries:
        raise ContractError(f"{path} carries no contract: export it with python export/to_onnx.py")
    return Contract.from_json(entries[METADATA_KEY]), json.loads(entries.get(EXPORT_KEY, "{}"))


def description(path: Path) -> str:
    """Return what a file says of itself, in lines."""
    contract, record = read_metadata(path)
    trained = contract.trained_on
    accuracy = trained.validation_accuracy
    lines = [
        ("labels", ", ".join(contract.labels)),
        ("frames", f"{contract.color_order}, {contract.input_size[1]}x{contract.input_size[0]}, the whole picture"),
        ("backbone", trained.backbone or "?"),
        (
            "accuracy",
            f"{accuracy:.3f} on {trained.validation_images} held-out frames"
            + (", optimistic: of sessions it was trained on" if trained.optimistic else "")
            if accuracy is not None
            else "not measured",
        ),
        ("calibration", f"temperature {contract.temperature:.2f}, unknown below {contract.unknown_threshold:.2f}"),
        ("dataset", trained.dataset or "?"),
        ("contract", f"version {contract.version}"),
    ]
    if record:
        smallest, usual, largest = record["profile"]
        proof, parity = record["proof"], record["proof"]["parity"]
        lines += [
            ("target", f"{record['target']}: {TARGETS[record['target']].device}"),
            ("precision", record["precision"]),
            ("batch", str(usual) if smallest == largest else f"{smallest} to {largest}"),
            (
                "parity",
                f"{parity['agreeing']} of {parity['frames']} labels, largest difference "
                f"{parity['largest_difference']:.1e}",
            ),
            *([("in float", ", ".join(proof["kept_in_float"]))] if proof["kept_in_float"] else []),
            ("exported", record["date"]),
            ("checkpoint", f"sha256 {record['checkpoint_sha256']}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
            ("proved on", record["processor"]),
            ("check images", f"{self_check.NUM_IMAGES} of the dataset" if record["check_images"] else "none"),
        ]
        if record["precision"] != "fp32" and proof["accuracy"] is not None:
            lines.append(("beside fp32", f"accuracy {proof['accuracy']:.3f}, in fp32 {proof['fp32_accuracy']:.3f}"))
    return "\n".join(f"{name:<12} {value}" for name, value in lines)
