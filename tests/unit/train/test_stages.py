"""Backbones in two parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teachcam.train.model.backbones import build_network
from teachcam.train.model.stages import TOLERANCE, divide


def num_layers(module: nn.Module) -> int:
    return sum(bool(list(layer.parameters(recurse=False))) for layer in module.modules())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "squeezenet1_1", "alexnet", "resnet18", "vit_b_16"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 1.0])
def test_both_parts_together_compute_what_the_backbone_computes(backbone, fraction):
    network = build_network(backbone, 3)[0].backbone.eval()
    stages = divide(network, fraction, (224, 224))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        activations = stages.first(images)
        assert torch.equal(stages.last(activations), network(images))
    assert len(activations) == 2
    if backbone != "vit_b_16":  # its transformer is traced as one piece
        trained = num_layers(stages.last) / num_layers(network)
        assert fraction - TOLERANCE - 0.1 < trained < fraction + 0.1
        assert activations.numel() <= images.numel()


def test_a_last_part_is_trained_in_the_network():
    network = build_network("resnet18", 3)[0].backbone.eval()
    stages = divide(network, 0.3, (64, 64))
    with torch.no_grad():
        for parameter in stages.last.parameters():
            parameter.zero_()
    assert not network(torch.randn(1, 3, 64, 64)).any()


def test_a_backbone_that_can_not_be_traced_is_one_part():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.mean((2, 3))) if images.sum() > 0 else images.mean((2, 3))

    network = Strange().eval()
    stages = divide(network, 0.5, (32, 32))
    assert isinstance(stages.first, nn.Identity)
    assert stages.last is network
