"""Turn a trained network into an ONNX graph.

The input `images` [N, H, W, 3] is what `teachcam.preprocessing.preprocess` returns. The outputs are `probabilities`
[N, num_classes] and `features` [N, D]; ONNX Runtime computes only those that are asked for. Normalization, temperature
and softmax are part of the graph.
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
    """Write a model as an ONNX graph in float32, without metadata and without checking it.

    Args:
        path: The file to write.
        model: The model.
        size: Height and width of the images, in pixels.
        target: Decides the opset, and whether the images are uint8 or float32.
        batch: Number of images that the graph takes at once; None for any number.
    """
    model = _fix_padding(model, size)
    dtype = torch.uint8 if target.uint8_input else torch.float32
    with warnings.catch_warnings():
        # PyTorch's newer exporter writes no opset below 18, which no JetPack up to 6 reads.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Constant folding")
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
    exported = onnx.load(str(path))
    _inline_shared_weights(exported.graph)
    exported.ir_version = 7 if target.opset < 15 else 8  # of the opset's age: old readers refuse newer ones
    onnx.save(exported, str(path))


@torch.no_grad()
def _fix_padding(model: InferenceModel, size: tuple[int, int]) -> InferenceModel:
    """Return a copy whose convolutions of padding "same" (timm's Conv2dSame) pad by constants.

    In the graph they would compute the padding of the images' size, and int8 would round it: 2 pixels become 1.
    """
    model = copy.deepcopy(model)
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer).__name__ == "Conv2dSame"]
    sizes: dict[nn.Module, tuple[int, int]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: sizes.update({layer: inputs[0].shape[-2:]}))
        for _, layer in layers
    ]
    model(torch.zeros(1, *size, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    for name, layer in layers:
        parent, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(parent), own_name, _PaddedConvolution(layer, sizes[layer]))
    return model


class _PaddedConvolution(nn.Module):
    """A convolution with padding "same" for images of one size. An odd pixel goes to the end."""

    def __init__(self, layer: nn.Conv2d, size: tuple[int, int]):
        super().__init__()
        self._layer = layer
        self._padding: list[int] = []
        for length, kernel, stride, dilation in zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True):
            padding = max(0, (-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length)
            self._padding = [padding // 2, padding - padding // 2, *self._padding]  # the last dimension comes first

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        layer = self._layer
        images = nn.functional.pad(images, self._padding)
        return nn.functional.conv2d(images, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


@torch.no_grad()
def fold_normalization(model: InferenceModel, size: tuple[int, int]) -> InferenceModel:
    """Fold the normalization of the images into the weights of the first convolution.

    The standard deviation is always folded, the mean only if the convolution has no padding: the sum would be wrong
    at the padded border. In int8, normalizing every pixel in float takes a third of SqueezeNet's time.

    Args:
        model: The model; it is not changed.
        size: Height and width of the images, in pixels.

    Returns:
        A copy that computes the same, or `model` itself if folding would change its features. GoogLeNet's would
        change, because it transforms its input once more.
    """
    folded = copy.deepcopy(model)
    first = next((layer for layer in folded.network.backbone.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        return model
    scale, mean = model.normalize.scale, model.normalize.shift / model.normalize.scale
    first.weight *= scale
    no_padding = first.padding == (0, 0)
    if no_padding:
        shift = -(first.weight * mean).sum((1, 2, 3))
        first.bias = nn.Parameter(shift if first.bias is None else first.bias + shift)
    folded.normalize = _SubtractMean(None if no_padding else mean, size[1])  # type: ignore[assignment]  # another module in its place
    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = model(images)[1]
    difference = (folded(images)[1] - features).abs().max() / features.std()
    return folded if difference < 1e-3 else model


class _SubtractMean(nn.Module):
    """Replaces `Normalize` after the scale has been folded; `mean` [1, 3, 1, 1] of 0-255 values, None if folded too."""

    def __init__(self, mean: torch.Tensor | None, width: int):
        super().__init__()
        # One mean per column of the image: ONNX Runtime broadcasts three numbers fifteen times more slowly.
        self.mean = None if mean is None else mean.view(1, 1, 1, 3).repeat(1, 1, width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.float() if self.mean is None else images.float() - self.mean
        return images.permute(0, 3, 1, 2)


def _inline_shared_weights(graph: onnx.GraphProto) -> None:
    """Remove Identity nodes that share equal weights: the quantizer takes their outputs for activations."""
    initializers = {tensor.name for tensor in graph.initializer}
    shared = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in initializers
    }
    nodes = [node for node in graph.node if not set(node.output) & shared.keys()]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = shared.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)
