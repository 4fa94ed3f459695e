"""Find int8 layers that could overflow the 16-bit sums of x86 processors without VNNI.

Processors with AVX2 but no VNNI (most laptops) multiply unsigned 8-bit activations by signed 8-bit weights, and add
the products in pairs in 16 bits (the instruction VPMADDUBSW). A larger sum is silently clipped to 32767, so the model
predicts something else than where it was exported.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

INT16_MAX = 32767
MAX_ACTIVATION = 255  # calibration spreads activations over all of uint8; int8 ones are shifted to uint8


def worst_pair_sums(model: onnx.ModelProto) -> dict[str, int]:
    """Return the largest sum of two products that can occur in each layer with int8 weights.

    It is an upper bound for any order in which a kernel pairs the weights: the two largest weights of the same sign
    in one output channel, times the largest activation.

    Args:
        model: A quantized graph with QuantizeLinear and DequantizeLinear nodes.

    Returns:
        The sums by the name of the Conv, Gemm or MatMul node.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    sums = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        dequantize = producer.get(node.input[1])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        weights = initializers.get(dequantize.input[0])
        if weights is None or weights.data_type != onnx.TensorProto.INT8:
            continue
        axis = next((entry.i for entry in dequantize.attribute if entry.name == "axis"), 1)
        values = numpy_helper.to_array(weights).astype(int)
        per_channel = numpy_helper.to_array(initializers[dequantize.input[1]]).ndim == 1
        channels = np.moveaxis(values, axis, 0) if per_channel else values[None]
        ordered = np.sort(channels.reshape(len(channels), -1), axis=1)
        highest = ordered[:, -2:].clip(min=0).sum(axis=1).max()
        lowest = ordered[:, :2].clip(max=0).sum(axis=1).min()
        sums[node.name] = int(max(highest, -lowest)) * MAX_ACTIVATION
    return sums


def find_saturating_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers whose sums may exceed 16 bits, the largest sum first."""
    sums = worst_pair_sums(model)
    return sorted((name for name, value in sums.items() if value > INT16_MAX), key=lambda name: -sums[name])
