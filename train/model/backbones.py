"""Build networks: a torchvision classifier without its last layer (the backbone), and a new head on it.

    normalized images -> backbone -> features [N, D] -> head -> logits [N, num_classes]

One backbone is not from torchvision: `small_cnn`, for small images, which is trained from scratch.
"""

from __future__ import annotations

from typing import cast

import torch
import torchvision
from torch import nn

from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.ridge_inputs import SQRT_EPSILON
from teachcam.train.model.pretrained import load_pretrained
from teachcam.train.model.timm_backbones import (
    LITES,
    build_timm,
    check_timm,
    is_timm,
    timm_input_size,
    timm_normalization,
)

INPUT_SIZE = (224, 224)  # height and width in pixels that torchvision's ImageNet weights were trained at
DEFAULT_BACKBONE = LITES[0]
SMALL_CNN = "small_cnn"
HEADS = ("linear", "mlp")
SQRT, SQRT_UNKNOWN = "sqrt", "sqrt_unknown"  # heads of the strategy ridge
MLP_HIDDEN_SIZE = 256  # of the mlp head
DROPOUT = 0.2
SMALL_CNN_FEATURES = 128


class Network(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, feature_size: int, num_classes: int, head: str = "linear"):
        """Put a new head on a backbone.

        Args:
            backbone: Takes normalized images, float32 [N, 3, H, W], and returns features, float32 [N, feature_size].
            feature_size: Number of features.
            num_classes: Number of labels.
            head: `linear`, `mlp` (linear, ReLU, dropout, linear), `sqrt` (signed square roots, linear: see ridge), or
                `sqrt_unknown`, which has one more output, for images of no label.
        """
        super().__init__()
        self.backbone = backbone
        self.feature_size = feature_size
        self.head: nn.Module
        self.head_kind = head
        if head == "linear":
            self.head = nn.Linear(feature_size, num_classes)
        elif head == SQRT:
            self.head = nn.Sequential(SignedSqrt(), nn.Linear(feature_size, num_classes))
        elif head == SQRT_UNKNOWN:
            self.head = nn.Sequential(SignedSqrt(), nn.Linear(feature_size, num_classes + 1))
        else:
            self.head = nn.Sequential(
                nn.Linear(feature_size, MLP_HIDDEN_SIZE),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
                nn.Linear(MLP_HIDDEN_SIZE, num_classes),
            )

    def add_unknown(self) -> None:
        """Replace a `sqrt` head by a new one with one more output, for images of no label."""
        linear = cast(nn.Linear, self.head.get_submodule("1"))
        self.head_kind = SQRT_UNKNOWN
        self.head = nn.Sequential(SignedSqrt(), nn.Linear(self.feature_size, linear.out_features + 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 [N, num_outputs], of normalized images, float32 [N, 3, H, W]."""
        return self.head(self.backbone(images))


class SignedSqrt(nn.Module):
    """The square roots of the magnitudes, with their signs, as `signed_sqrt` in teachcam/ridge.py."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, D], computed with operators that every TensorRT reads."""
        return features / torch.sqrt(features.abs() + SQRT_EPSILON)


def check_backbone(backbone: str) -> None:
    """Raise TrainingError if there is no backbone of that name."""
    if is_timm(backbone):
        check_timm(backbone)
    elif backbone != SMALL_CNN and backbone not in torchvision.models.list_models(module=torchvision.models):
        raise TrainingError(
            f"no backbone {backbone!r}: give {', '.join(LITES)}, squeezenet1_1, resnet18, alexnet, any other "
            f"classifier of torchvision.models, timm:NAME for one of timm's, or {SMALL_CNN} for small images"
        )


def build_network(
    backbone: str, num_classes: int, weights: str = "none", seed: int = 0, head: str = "linear"
) -> tuple[Network, str]:
    """Build a network with a new head.

    Args:
        backbone: Name of a torchvision classifier, one of LITES, `timm:NAME`, or `small_cnn`.
        num_classes: Number of labels.
        weights: Weights of the backbone: `imagenet`, `none` (random), or a file with that classifier's state dict.
        seed: Seed of all random weights.
        head: `linear`, or `mlp` (linear, ReLU, dropout, linear).

    Returns:
        The network, and a text that says where the backbone's weights came from.

    Raises:
        TrainingError: if the backbone does not exist, or its weights can't be loaded.
    """
    check_backbone(backbone)
    torch.manual_seed(seed)
    if backbone == SMALL_CNN:
        if weights != "none":
            raise TrainingError(f"{SMALL_CNN} has no pretrained weights: give --strategy scratch")
        return Network(_small_cnn(), SMALL_CNN_FEATURES, num_classes, head), "random"
    if is_timm(backbone):
        model, source = build_timm(backbone, weights)
        return Network(model, _count_features(model, timm_input_size(backbone)), num_classes, head), source
    model = torchvision.models.get_model(backbone, weights=None)
    source = "random" if weights == "none" else load_pretrained(model, backbone, weights)
    if hasattr(model, "transform_input"):  # GoogLeNet's and Inception's weights expect another normalization
        model.transform_input = True  # with random weights too, because loading a checkpoint begins with those
    if getattr(model, "aux_logits", False):  # auxiliary heads, used only in training on ImageNet
        model.aux_logits = False
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, name):
                setattr(model, name, None)
    return Network(model, _remove_head(model), num_classes, head), source


@torch.no_grad()
def _count_features(backbone: nn.Module, size: tuple[int, int]) -> int:
    return backbone.eval()(torch.zeros(1, 3, *size)).shape[1]


def _small_cnn() -> nn.Module:
    """Build three convolutions, each followed by a halving of the size, and an average over all positions."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, SMALL_CNN_FEATURES)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation by which images are normalized for a backbone, RGB."""
    return timm_normalization(backbone) if is_timm(backbone) else (Contract.mean, Contract.std)


def default_input_size(backbone: str) -> tuple[int, int]:
    """Return the height and the width of the input in pixels, if the user names no other."""
    return timm_input_size(backbone) if is_timm(backbone) else INPUT_SIZE


@torch.no_grad()
def check_input_size(network: Network, backbone: str, size: tuple[int, int]) -> None:
    """Raise TrainingError if a network can't process images of this size (height, width) in pixels."""
    try:
        network.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError):
        raise TrainingError(f"--image-size {size[0]}: {backbone} can't process this size, give another") from None


def freeze_first_layers(backbone: nn.Module, fraction: float) -> None:
    """Freeze the first layers of a backbone and unfreeze the others.

    Args:
        backbone: Backbone, whose parameters' requires_grad is changed.
        fraction: Fraction of the layers, counted from the input; 0 freezes none, 1 all.
    """
    layers = [layer for layer in backbone.modules() if list(layer.parameters(recurse=False))]
    for index, layer in enumerate(layers):
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(index >= round(fraction * len(layers)))


@torch.no_grad()
def scaled_size(backbone: nn.Module, size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Scale an input size for progressive resizing.

    Args:
        backbone: Backbone, which is tried on the smaller size.
        size: Height and width in pixels.
        scale: 0 to 1.

    Returns:
        The scaled height and width, rounded to multiples of 32, or `size` if the backbone can't process another.
    """
    height, width = (max(32, round(scale * side / 32) * 32) for side in size)
    smaller = height, width
    if scale == 1 or smaller == size:
        return size
    was_training, weight = backbone.training, next(backbone.parameters())
    try:
        backbone.eval()(torch.zeros(1, 3, *smaller, device=weight.device))
    except (RuntimeError, AssertionError, ValueError):  # a vision transformer has position embeddings for one size
        return size
    finally:
        backbone.train(was_training)
    return smaller


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that makes training on this device faster: bfloat16, else float16 on a GPU, else None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("avx512_bf16") else None


def _remove_head(model: nn.Module) -> int:
    """Replace a classifier's last layer by the identity, so that it returns features [N, D]; return D.

    The last Linear is the head. SqueezeNet has no Linear: its head is the last convolution and the ReLU after it.
    """
    layers = dict(model.named_modules())
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    name = (linears or convolutions)[-1]
    parent = layers[name.rpartition(".")[0]]
    _replace_by_identity(parent, name)
    if linears:
        return layers[name].in_features
    following = list(parent.named_children())
    index = [child for child, _ in following].index(name.rpartition(".")[2]) + 1
    if index < len(following) and isinstance(following[index][1], nn.ReLU):
        _replace_by_identity(parent, following[index][0])
    return layers[name].in_channels


def _replace_by_identity(parent: nn.Module, name: str) -> None:
    setattr(parent, name.rpartition(".")[2], nn.Identity())
