"""Pretrained weights: torchvision's own, a file's, or those that come with a package and need no network."""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
from pathlib import Path

import torch
import torchvision
from torch import nn

from teachcam.cli import first_line
from teachcam.errors import TrainingError
from teachcam.train.model.squeezenet_ndf import squeezenet_from_ndf


def load_pretrained(model: nn.Module, backbone: str, weights: str) -> str:
    """Load pretrained weights into a torchvision classifier; return where they came from.

    `weights` is a state dict's file, or `imagenet`: torchvision's hub cache (below TORCH_HOME), else the package
    ndf for squeezenet1_1, else torchvision's download. Raises TrainingError where none can be had.
    """
    if weights != "imagenet":
        return _load_file(model, Path(weights))
    published = torchvision.models.get_model_weights(backbone).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    if not cached.is_file() and backbone == "squeezenet1_1" and (state := squeezenet_from_ndf()):
        model.load_state_dict(state)
        return "ImageNet, from the package ndf"
    if cached.is_file():
        _load_file(model, cached)
    else:
        _download(model, published, cached)
    return f"ImageNet, torchvision {published}"


def _load_file(model: nn.Module, path: Path) -> str:
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise TrainingError(f"no weights at {path}: give imagenet, none, or a state dict's file") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise TrainingError(
            f"{path} does not hold the state dict of this backbone in torchvision, as torch.save writes it "
            f"({first_line(error).rstrip(':')})"
        ) from None
    return str(path)


def _download(model: nn.Module, published, cached: Path) -> None:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds; a network that swallows packets would otherwise hang here
    try:
        with contextlib.redirect_stdout(sys.stderr):
            model.load_state_dict(published.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"ImageNet weights could not be downloaded from {published.url} ({error}): bring that file to {cached}, "
            "give it with --weights FILE, or train --backbone squeezenet1_1, whose weights come with the package ndf"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
