"""A checkpoint that rebuilds itself: weights, contract, and the frames to prove an export on.

It holds tensors and plain values only and is read with torch's safe loader: a checkpoint from a stranger runs nothing.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from teachcam.contract import Contract
from teachcam.errors import CheckpointError
from teachcam.files import open_atomic
from teachcam.train.model.backbones import Network, build_network

FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, what it promises, and where its frames are."""

    network: Network
    contract: Contract
    data: str  # the dataset's folder
    validation: list[tuple[str, str]]  # labels, and paths below it
    trained_on: list[tuple[str, str]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    content = {
        "format": FORMAT,
        "contract": checkpoint.contract.to_json(),
        "weights": {name: tensor.cpu() for name, tensor in checkpoint.network.state_dict().items()},
        "data": checkpoint.data,
        "validation": checkpoint.validation,
        "trained_on": checkpoint.trained_on,
    }
    with open_atomic(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and build its network, on the CPU. Raises CheckpointError, or ContractError."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}: train one with python train/finetune.py") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
        raise CheckpointError(f"{path} is not a whole checkpoint of train/finetune.py: train it again") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of train/finetune.py that this version knows")
    try:
        contract = Contract.from_json(saved["contract"])
        trained = contract.trained_on
        network, _ = build_network(trained.backbone, len(contract.labels), head=trained.head)
        network.load_state_dict(saved["weights"])
        frames = ([(str(label), str(path)) for label, path in saved[part]] for part in ("validation", "trained_on"))
        return Checkpoint(network.eval(), contract, str(saved["data"]), *frames)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise CheckpointError(f"{path} lacks a part of what train/finetune.py writes: train it again") from None
