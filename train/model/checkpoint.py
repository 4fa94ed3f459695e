"""Save and load checkpoints: the weights, the contract, and the names of the images that export is verified on.

A checkpoint holds tensors and plain values only. It is read with torch's safe loader, which runs no code from the file.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from teachcam.contract import Contract
from teachcam.errors import CheckpointError
from teachcam.files import open_atomic
from teachcam.train.model.backbones import Network, build_network

FORMAT = 3  # raise it when the keys of the file change


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, its contract, and the images that it was trained and validated on."""

    network: Network
    contract: Contract
    data_folder: str  # of the dataset
    validation_files: list[tuple[str, str]]  # label, and path relative to the dataset folder
    training_files: list[tuple[str, str]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. If writing fails, no half-written file stays."""
    content = {
        "format": FORMAT,
        "contract": checkpoint.contract.to_json(),
        "weights": {name: tensor.cpu() for name, tensor in checkpoint.network.state_dict().items()},
        "data_folder": checkpoint.data_folder,
        "validation_files": checkpoint.validation_files,
        "training_files": checkpoint.training_files,
    }
    save_tensors(path, content)


def save_tensors(path: Path, content: dict) -> None:
    """Write tensors and plain values for `load_tensors`. Raises OSError; then the file is as it was before."""
    with open_atomic(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # after a failed write, torch fails to end its archive, too
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and rebuild its network on the CPU, in evaluation mode.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another format.
        ContractError: if its contract is damaged or of another version.
    """
    try:
        saved = load_tensors(path)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}: train one with teachcam train") from None
    except ValueError:
        raise CheckpointError(f"{path} is damaged or not a checkpoint: train again with teachcam train") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version: train again with teachcam train")
    try:
        contract = Contract.from_json(saved["contract"])
        trained_on = contract.trained_on
        network, _ = build_network(trained_on.backbone, len(contract.labels), head=trained_on.head)
        network.load_state_dict(saved["weights"])
        files = (
            [(str(label), str(name)) for label, name in saved[key]] for key in ("validation_files", "training_files")
        )
        return Checkpoint(network.eval(), contract, str(saved["data_folder"]), *files)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise CheckpointError(f"{path} is incomplete: train again with teachcam train") from None


def load_tensors(path: Path) -> Any:
    """Return what `torch.save` wrote, on the CPU. Raises FileNotFoundError, or ValueError for a damaged file.

    The file is a ZIP archive. PyTorch does not compare its checksums, and would load a flipped bit as a weight.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # of many kinds: the damage may be anywhere in the archive, or in the pickle in it
        raise ValueError(f"{path} is damaged") from error
    raise ValueError(f"{path} is damaged: {damaged}")
