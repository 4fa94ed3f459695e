"""What each device reads, and a lint that refuses a graph here before the device does.

The operators are those of onnx-tensorrt's published support tables. A device that runs a graph on its CPU reads more;
these are held to TensorRT, which is what makes a Jetson quick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto

OPERATORS_8_2 = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor
    Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid
    Identity InstanceNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LRN MatMul Max MaxPool Mean Min Mul
    Neg Not Or Pad Pow PRelu QuantizeLinear Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round ScatterElements
    ScatterND Selu Shape Sigmoid Sign Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
    Sum Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Where
"""
TENSORRT_8_2 = frozenset(OPERATORS_8_2.split())
TENSORRT_8_5 = TENSORRT_8_2 | {"GridSample", "HardSwish", "MeanVarianceNormalization", "Mod", "Reciprocal", "Trilu"}
TENSORRT_8_6 = TENSORRT_8_5 | {"GroupNormalization", "LayerNormalization"}
STANDARD = ("", "ai.onnx")  # domains
RESIZE_MODES = (b"nearest", b"linear")
CLIPPED = (TensorProto.INT64, TensorProto.DOUBLE)  # read as int32 and float32: fine for constants, not for data
TENSORRT_DTYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32, TensorProto.BOOL)


@dataclass(frozen=True)
class Target:
    """A kind of device: what it is, and the newest opset, the input and the operators that it reads."""

    device: str
    opset: int
    uint8_input: bool = True
    operators: frozenset[str] | None = None  # all that ONNX Runtime knows


TARGETS = {
    "desktop": Target("ONNX Runtime", 17),  # not the newest: those on devices are older
    "jetpack4": Target("TensorRT 8.2 (JetPack 4.6)", 13, False, TENSORRT_8_2),
    "jetpack5": Target("TensorRT 8.5 (JetPack 5.1)", 17, True, TENSORRT_8_5),
    "jetpack6": Target("TensorRT 8.6 (JetPack 6.0)", 17, True, TENSORRT_8_6),  # 6.1 and later read more
    "jetpack7": Target("TensorRT 10 (JetPack 7)", 17, True, TENSORRT_8_6),  # unverified, so no more than JetPack 6
}


def lint(graph: onnx.ModelProto, target: Target) -> list[str]:
    """Return what the target does not take: a line for each, naming the node; nothing where all is well."""
    strange = [node for node in graph.graph.node if node.domain not in STANDARD]
    if strange:
        return [f"{_name(node)}: of {node.domain}, not of standard ONNX" for node in strange]
    return list(dict.fromkeys(_complaints(onnx.shape_inference.infer_shapes(graph), target)))


def _complaints(model: onnx.ModelProto, target: Target) -> Iterator[str]:
    graph = model.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    if opset > target.opset:
        newest = max(graph.node, key=lambda node: _since(node, opset))
        yield f"{_name(newest)}: written in opset {opset}, {target.device} reads up to {target.opset}"
    readers = {name: node for node in reversed(graph.node) for name in node.input}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    uint8 = {value.name for value in inputs if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for value in inputs:
        tensor, reader = value.type.tensor_type, _name(readers[value.name]) if value.name in readers else value.name
        allowed = (TensorProto.FLOAT, *([TensorProto.UINT8] if target.uint8_input else []))
        if tensor.elem_type not in allowed:
            yield f"{reader}: input {value.name!r} is {_dtype(tensor.elem_type)}, {target.device} takes " + " or ".join(
                _dtype(one) for one in allowed
            )
        if any(not size.dim_value for size in tensor.shape.dim[1:]):
            yield f"{reader}: input {value.name!r} leaves more open than the batch"
    for node in graph.node:
        if target.operators is not None:
            yield from _of_tensorrt(node, target, constants, uint8)
    if target.operators is not None:
        made_by = {name: node for node in graph.node for name in node.output}
        for value in graph.value_info:
            dtype = value.type.tensor_type.elem_type
            if dtype not in (*TENSORRT_DTYPES, *CLIPPED, TensorProto.UNDEFINED):
                yield f"{_name(made_by[value.name])}: gives {_dtype(dtype)}, which {target.device} does not compute in"


def _of_tensorrt(node: onnx.NodeProto, target: Target, constants: dict, uint8: set[str]) -> Iterator[str]:
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type not in target.operators:
        yield f"{_name(node)}: {target.device} has no {node.op_type}"
    if uint8.intersection(node.input) and node.op_type != "Cast":
        yield f"{_name(node)}: {target.device} can only cast frames of uint8, before anything else"
    if node.op_type == "Resize":
        if attributes.get("antialias"):
            yield f"{_name(node)}: {target.device} ignores or refuses antialiasing"
        if attributes.get("mode", b"nearest") not in RESIZE_MODES:
            yield f"{_name(node)}: {target.device} resizes by nearest or linear, not {attributes['mode'].decode()}"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield f"{_name(node)}: {target.device} gives no indices of a MaxPool"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type != TensorProto.INT8 or onnx.numpy_helper.to_array(zero).any():
            yield f"{_name(node)}: {target.device} quantizes to int8 around zero only"


def _since(node: onnx.NodeProto, opset: int) -> int:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    except onnx.defs.SchemaError:
        return 0


def _name(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def _dtype(code: int) -> str:
    return TensorProto.DataType.Name(code).lower()
