"""Backbones: any torchvision classifier, with its head cut off at one named place and a new one put on.

frames -> [Normalize] -> backbone -> features [N, D] -> head -> logits [N, labels]

One is our own: `small_cnn`, for small pictures, to be trained from scratch.
"""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from teachcam.errors import TrainingError
from teachcam.train.model.pretrained import load_pretrained

INPUT_SIZE = (224, 224)  # height, width: what the ImageNet weights were trained at
SMALL_CNN = "small_cnn"
HEADS = ("linear", "mlp")
HIDDEN = 256  # of the mlp head
DROPOUT = 0.2


class Network(nn.Module):
    """A backbone and a head. `forward` takes normalized float [N, 3, H, W] and returns logits [N, labels]."""

    def __init__(self, backbone: nn.Module, feature_size: int, labels: int, head: str = "linear"):
        super().__init__()
        self.backbone = backbone
        self.feature_size = feature_size
        if head == "linear":
            self.head = nn.Linear(feature_size, labels)
        else:
            layers = nn.Linear(feature_size, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, labels)
            self.head = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.head(self.backbone(x))


def check_backbone(backbone: str) -> None:
    """Raise TrainingError if torchvision has no classifier of that name."""
    if backbone != SMALL_CNN and backbone not in torchvision.models.list_models(module=torchvision.models):
        raise TrainingError(
            f"no backbone {backbone!r}: squeezenet1_1, resnet18 and alexnet are the tested ones, "
            f"any other classifier of torchvision.models goes by its name, and {SMALL_CNN} is for small pictures"
        )


def build_network(
    backbone: str, labels: int, weights: str = "none", seed: int = 0, head: str = "linear"
) -> tuple[Network, str]:
    """Build a network with a fresh head for `labels` labels; return it and where its weights came from.

    `backbone` is a torchvision classifier's name, or small_cnn; `weights` is `imagenet`, `none` (random) or a file that
    holds that classifier's state dict; `head` is `linear` or `mlp` (linear, ReLU, dropout, linear). Raises
    TrainingError where there is no such backbone, or no such weights.
    """
    check_backbone(backbone)
    torch.manual_seed(seed)
    if backbone == SMALL_CNN:
        if weights != "none":
            raise TrainingError(f"{SMALL_CNN} comes untrained: give --strategy scratch")
        return Network(_small_cnn(), 128, labels, head), "random"
    model = torchvision.models.get_model(backbone, weights=None)
    source = "random" if weights == "none" else load_pretrained(model, backbone, weights)
    if hasattr(model, "transform_input"):  # GoogLeNet's and Inception's weights are of another normalization
        model.transform_input = True  # of random weights too: a checkpoint rebuilds its network around those
    if getattr(model, "aux_logits", False):  # second and third heads halfway, which only ImageNet's training used
        model.aux_logits = False
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, name):
                setattr(model, name, None)
    return Network(model, _cut_head(model), labels, head), source


def _small_cnn() -> nn.Module:
    """Build three convolutions, each halving the picture, and their average: features [N, 128] of 16 pixels or more."""
    layers: list[nn.Module] = []
    for channels, more in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(channels, more, 3, padding=1, bias=False), nn.BatchNorm2d(more), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@torch.no_grad()
def check_size(network: Network, backbone: str, size: tuple[int, int]) -> None:
    """Raise TrainingError if a network takes no pictures of that size (height, width)."""
    try:
        network.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError):
        raise TrainingError(f"--size {size[0]}: {backbone} takes no pictures of that size, give another") from None


def freeze_first_layers(backbone: nn.Module, share: float) -> None:
    """Let a share of the backbone's layers, counted from the input, learn no more, and the rest learn."""
    layers = [layer for layer in backbone.modules() if list(layer.parameters(recurse=False))]
    for index, layer in enumerate(layers):
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(index >= round(share * len(layers)))


@torch.no_grad()
def scaled_size(backbone: nn.Module, size: tuple[int, int], share: float) -> tuple[int, int]:
    """Return that share of a size (height, width), in steps of 32, or all of it where the backbone takes no other."""
    smaller = tuple(max(32, round(share * side / 32) * 32) for side in size)
    if share == 1 or smaller == size:
        return size
    was_training, weight = backbone.training, next(backbone.parameters())
    try:
        backbone.eval()(torch.zeros(1, 3, *smaller, device=weight.device))
    except (RuntimeError, AssertionError, ValueError):  # a vision transformer's positions are those of one size
        return size
    finally:
        backbone.train(was_training)
    return smaller


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that trains faster on this device, or None: bfloat16 where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("avx512_bf16") else None


def _cut_head(model: nn.Module) -> int:
    """Take the classifier's last layer out, so that the model returns features [N, D]; return D.

    One rule for all: the last Linear is the head. SqueezeNet has none; there it is the last convolution with the
    ReLU after it, and what is pooled afterwards are features instead of logits.
    """
    layers = dict(model.named_modules())
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    name = (linears or convolutions)[-1]
    parent = layers[name.rpartition(".")[0]]
    _replace(parent, name)
    if linears:
        return layers[name].in_features
    following = list(parent.named_children())
    index = [child for child, _ in following].index(name.rpartition(".")[2]) + 1
    if index < len(following) and isinstance(following[index][1], nn.ReLU):
        _replace(parent, following[index][0])
    return layers[name].in_channels


def _replace(parent: nn.Module, name: str) -> None:
    setattr(parent, name.rpartition(".")[2], nn.Identity())
