"""Divide a backbone into first stages, which stay frozen, and last stages, which are trained.

The first stages then compute the activations of an image only once, and training takes a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

TOLERANCE = 0.1


@dataclass(frozen=True)
class Stages:
    """A backbone in two parts, which share its parameters: features = last(first(images))."""

    first: nn.Module
    last: nn.Module


@torch.no_grad()
def divide(backbone: nn.Module, trainable_fraction: float, size: tuple[int, int]) -> Stages:
    """Divide a backbone before the layers that are trained, where its activations are small.

    Args:
        backbone: Backbone in evaluation mode. One that can't be traced is not divided: its first part does nothing.
        trainable_fraction: Fraction of its layers, counted from the head. Up to TOLERANCE more may stay frozen.
        size: Height and width of the images in pixels.
    """
    try:
        graph = _Tracer().trace(backbone)
        cut = _best_cut(graph, backbone, trainable_fraction, size)
    except Exception:  # of many kinds, for code that depends on the values of tensors
        return Stages(nn.Identity(), backbone)
    first, last = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    nodes = list(graph.nodes)
    end = nodes.index(cut) + 1
    for node in nodes[:end]:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(copies[cut])
    copies = {cut: last.placeholder("activations")}
    for node in nodes[end:]:
        copies[node] = last.node_copy(node, copies.__getitem__)
    return Stages(fx.GraphModule(backbone, first), fx.GraphModule(backbone, last))


@torch.no_grad()
def activation_bytes(stages: Stages, size: tuple[int, int]) -> int:
    """Return how many bytes the activations between the stages take for an image, as float16.

    Args:
        stages: Stages in evaluation mode.
        size: Height and width of the image in pixels.
    """
    device = next(stages.last.parameters()).device
    return 2 * stages.first(torch.zeros(1, 3, *size, device=device)).numel()


class _Tracer(fx.Tracer):
    """Does not look into layers that have parameters."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _has_parameters(m) or super().is_leaf_module(m, module_qualified_name)


def _has_parameters(layer: nn.Module) -> bool:
    return bool(list(layer.parameters(recurse=False)))


def _best_cut(graph: fx.Graph, backbone: nn.Module, trainable_fraction: float, size: tuple[int, int]) -> fx.Node:
    """Return the node after which to cut: the only one whose value later nodes need, with the smallest value."""
    nodes, layers = list(graph.nodes), dict(backbone.named_modules())
    is_layer = [node.op == "call_module" and _has_parameters(layers[str(node.target)]) for node in nodes]
    position = {node: index for index, node in enumerate(nodes)}
    sizes = _Sizes(fx.GraphModule(backbone, graph))
    sizes.run(torch.zeros(2, 3, *size, device=next(backbone.parameters()).device))
    frozen, possible, last_use = 0.0, {}, -1
    for index, node in enumerate(nodes):
        frozen += is_layer[index] / sum(is_layer)
        if node in sizes.of and last_use <= index and frozen <= 1 - trainable_fraction + TOLERANCE:
            possible[node] = frozen
        last_use = max([last_use, *(position[user] for user in node.users)])
    wanted = min(1 - trainable_fraction, max(possible.values())) - 1e-6
    return min((node for node in possible if possible[node] >= wanted), key=lambda node: sizes.of[node])


class _Sizes(fx.Interpreter):
    """Runs a graph, and notes the number of elements of each tensor that holds one row for each image."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.of: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run one node."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape[:1] == (2,):
            self.of[n] = value.numel()
        return value
