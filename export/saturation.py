"""Whether an int8 file could overflow the 16-bit sums of processors without VNNI.

x86 processors with AVX2 but no VNNI (most laptops) multiply unsigned 8-bit activations by signed 8-bit weights and
add each two products in 16 bits (the instruction VPMADDUBSW). Two large products do not fit: they are clipped to
32767 without a word, and the file answers otherwise than where it was exported.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

LIMIT = 32767  # the largest sum that 16 bits hold
LARGEST_ACTIVATION = 255  # calibration spreads the activations over all of uint8; int8 ones are shifted to it


def worst_pair_sums(model: onnx.ModelProto) -> dict[str, int]:
    """Return, for each layer with int8 weights, the largest sum of two products that its inputs could cause.

    It is a bound for any order in which a kernel pairs the weights: the two largest of the same sign in one output
    channel, times the largest activation. Keys are the names of Conv, Gemm and MatMul nodes.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    sums = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        source = made_by.get(node.input[1])
        stored = weights.get(source.input[0]) if source is not None and source.op_type == "DequantizeLinear" else None
        if stored is None or stored.data_type != onnx.TensorProto.INT8:
            continue
        axis = next((entry.i for entry in source.attribute if entry.name == "axis"), 1)
        values = numpy_helper.to_array(stored).astype(int)
        per_channel = len(numpy_helper.to_array(weights[source.input[1]]).shape) == 1
        channels = np.moveaxis(values, axis, 0) if per_channel else values[None]
        ordered = np.sort(channels.reshape(len(channels), -1), axis=1)
        highest = ordered[:, -2:].clip(min=0).sum(axis=1).max()
        lowest = ordered[:, :2].clip(max=0).sum(axis=1).min()
        sums[node.name] = int(max(highest, -lowest)) * LARGEST_ACTIVATION
    return sums


def can_saturate(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers whose sums may not fit into 16 bits, the worst first."""
    sums = worst_pair_sums(model)
    return sorted((name for name, value in sums.items() if value > LIMIT), key=lambda name: -sums[name])
