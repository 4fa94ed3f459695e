"""Load pretrained weights: torchvision's, those of a file, or SqueezeNet's from a package, which needs no download."""

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
from teachcam.files import expand
from teachcam.train.model.squeezenet_ndf import squeezenet_from_ndf


def load_pretrained(model: nn.Module, backbone: str, weights: str) -> str:
    """Load pretrained weights into a torchvision classifier.

    `imagenet` means torchvision's hub cache (below TORCH_HOME), else the package ndf (squeezenet1_1 only), else
    torchvision's download.

    Args:
        model: Classifier.
        backbone: Name of the classifier in torchvision.
        weights: `imagenet`, or a file with its state dict.

    Returns:
        Where the weights came from.

    Raises:
        TrainingError: if the weights can't be loaded.
    """
    if weights != "imagenet":
        return _load_file(model, expand(weights))
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
        raise TrainingError(f"--weights: no file {path}; give imagenet, none, or a file with a state dict") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise TrainingError(
            f"--weights {path}: not a state dict of this torchvision backbone, written by torch.save "
            f"({first_line(error).rstrip(':')})"
        ) from None
    return str(path)


def _download(model: nn.Module, published: torchvision.models.WeightsEnum, cached: Path) -> None:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds; without it a network that drops packets blocks for minutes
    try:
        with contextlib.redirect_stdout(sys.stderr):
            model.load_state_dict(published.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"ImageNet weights could not be downloaded from {published.url} ({error}): copy that file to {cached}, "
            "give it with --weights FILE, or use --backbone squeezenet1_1, whose weights come with the package ndf"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
