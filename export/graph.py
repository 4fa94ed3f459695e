"""A trained network as an ONNX graph.

The graph takes frames as `train.contract.preprocess` gives them, [N, H, W, 3], and returns `probabilities` [N, labels]
and `features` [N, D], which cost nothing unless asked for. Normalization, temperature and softmax are inside it.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from teachcam.export.targets import Target
from teachcam.train.model.inference import InferenceModel


def write_onnx(path: Path, model: InferenceModel, size: tuple[int, int], target: Target, batch: int | None = 1) -> None:
    """Write a model for frames of a size (height, width), unproved; `batch` None leaves the batch open."""
    dtype = torch.uint8 if target.uint8_input else torch.float32
    with warnings.catch_warnings():
        # The newer exporter writes no opset below 18; this one serves every JetPack.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            model,
            (torch.zeros(batch or 2, *size, 3, dtype=dtype),),
            str(path),
            input_names=["images"],
            output_names=["probabilities", "features"],
            dynamic_axes=None if batch else {name: {0: "batch"} for name in ("images", "probabilities", "features")},
            opset_version=target.opset,
            dynamo=False,
        )
    graph = onnx.load(str(path))
    _inline_shared_weights(graph.graph)
    graph.ir_version = 7 if target.opset < 15 else 8  # as old as the opset, for readers as old
    onnx.save(graph, str(path))


@torch.no_grad()
def fold_normalization(model: InferenceModel, size: tuple[int, int]) -> InferenceModel:
    """Return the same function with the normalization in the first convolution's weights, as far as that is exact.

    The scale always is; the mean is where the convolution pads nothing. Beside int8 layers those two operations, in
    float on every pixel, take a third of SqueezeNet's time.
    """
    folded = copy.deepcopy(model)
    first = next((layer for layer in folded.network.backbone.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        return model
    scale, mean = model.normalize.scale, model.normalize.shift / model.normalize.scale
    first.weight *= scale
    if first.padding == (0, 0):
        shift = -(first.weight * mean).sum((1, 2, 3))
        first.bias = nn.Parameter(shift if first.bias is None else first.bias + shift)
        mean = None
    folded.normalize = _Centre(mean, size[1])
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = model(frames)[1]
    differ = (folded(frames)[1] - features).abs().max() / features.std()
    return folded if differ < 1e-3 else model  # GoogLeNet transforms its input once more on the way


class _Centre(nn.Module):
    def __init__(self, mean: torch.Tensor | None, width: int):
        super().__init__()
        # A whole row of it: with three numbers ONNX Runtime's broadcast takes fifteen times as long.
        self.mean = None if mean is None else mean.view(1, 1, 1, 3).repeat(1, 1, width, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = frames.float() if self.mean is None else frames.float() - self.mean
        return frames.permute(0, 3, 1, 2)


def _inline_shared_weights(graph: onnx.GraphProto) -> None:
    """Let nodes read weights that are alike straight, not by an Identity: quantization takes those for activations."""
    weights = {tensor.name for tensor in graph.initializer}
    shared = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    shared = {name: source for name, source in shared.items() if source in weights}
    nodes = [node for node in graph.node if not set(node.output) & shared.keys()]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = shared.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)
