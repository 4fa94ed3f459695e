"""Define the target devices, and check that a device can read a graph before the graph gets there.

The operators are those of onnx-tensorrt's published support tables. ONNX Runtime on a Jetson's CPU runs more of them,
but only what TensorRT runs is fast there.
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
STANDARD_DOMAINS = ("", "ai.onnx")
RESIZE_MODES = (b"nearest", b"linear")
NARROWED_DTYPES = (TensorProto.INT64, TensorProto.DOUBLE)  # TensorRT reads them as int32 and float32
TENSORRT_DTYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32, TensorProto.BOOL)


@dataclass(frozen=True)
class Target:
    """A kind of device that models are exported for.

    Attributes:
        device: The software that runs the model, for messages.
        hardware: What a person calls the machine that it runs on.
        precisions: Those that gain something there, the exact one first.
        opset: The newest ONNX opset that it reads.
        uint8_input: Whether it takes uint8 images; else they are float32.
        operators: The ONNX operators that TensorRT runs; empty for ONNX Runtime, which runs all.
    """

    device: str
    hardware: str
    precisions: tuple[str, ...]
    opset: int
    uint8_input: bool = True
    operators: frozenset[str] = frozenset()

    @property
    def for_tensorrt(self) -> bool:
        """Whether TensorRT runs the model, which has rules of its own for int8. Else ONNX Runtime does."""
        return bool(self.operators)


# EfficientNet-Lite0 on a CPU with VNNI: 7.9 ms in fp32, 11.4 in fp16, 3.6 in int8. For TensorRT, the weights of int8
# stay in float in the file, because it quantizes them itself: 13.7 MB, and 13.5 in fp32.
ON_CPU, ON_TENSORRT = ("fp32", "int8"), ("fp32", "fp16")
TARGETS = {
    # Not the newest opset: ONNX Runtime on devices is often older.
    "desktop": Target("ONNX Runtime", "PC, laptop or Raspberry Pi", ON_CPU, 17),
    "jetpack4": Target("TensorRT 8.2 (JetPack 4.6)", "Jetson with JetPack 4.6", ON_TENSORRT, 13, False, TENSORRT_8_2),
    "jetpack5": Target("TensorRT 8.5 (JetPack 5.1)", "Jetson with JetPack 5.1", ON_TENSORRT, 17, True, TENSORRT_8_5),
    # JetPack 6.1 and later read more.
    "jetpack6": Target("TensorRT 8.6 (JetPack 6.0)", "Jetson with JetPack 6", ON_TENSORRT, 17, True, TENSORRT_8_6),
    # Not tested, so no more than JetPack 6.
    "jetpack7": Target("TensorRT 10 (JetPack 7)", "Jetson with JetPack 7", ON_TENSORRT, 17, True, TENSORRT_8_6),
}


def lint(model: onnx.ModelProto, target: Target) -> list[str]:
    """Return the problems that a target has with a graph, one line each, which names the node; [] without any."""
    if custom := [node for node in model.graph.node if node.domain not in STANDARD_DOMAINS]:
        return [f"{_name(node)}: its domain is {node.domain}, not standard ONNX" for node in custom]
    model = onnx.shape_inference.infer_shapes(model)
    problems = [*_check_opset(model, target), *_check_inputs(model.graph, target)]
    if target.for_tensorrt:
        problems += _check_tensorrt(model.graph, target)
    return list(dict.fromkeys(problems))  # without repeats, in order


def _check_opset(model: onnx.ModelProto, target: Target) -> Iterator[str]:
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 0)
    if opset > target.opset:
        newest = max(model.graph.node, key=lambda node: _since_version(node, opset))
        yield f"{_name(newest)}: written in opset {opset}, {target.device} reads up to {target.opset}"


def _check_inputs(graph: onnx.GraphProto, target: Target) -> Iterator[str]:
    consumer = {name: node for node in reversed(graph.node) for name in node.input}  # the first one of each tensor
    allowed = [TensorProto.FLOAT, *([TensorProto.UINT8] if target.uint8_input else [])]
    for value in _inputs(graph):
        tensor = value.type.tensor_type
        where = f"{_name(consumer[value.name]) if value.name in consumer else 'graph'}: input {value.name!r}"
        if tensor.elem_type not in allowed:
            dtypes = " or ".join(_dtype(code) for code in allowed)
            yield f"{where} is {_dtype(tensor.elem_type)}, {target.device} takes {dtypes}"
        if any(not size.dim_value for size in tensor.shape.dim[1:]):
            yield f"{where} has a dynamic size; only the batch may be dynamic"


def _check_tensorrt(graph: onnx.GraphProto, target: Target) -> Iterator[str]:
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    uint8_inputs = {value.name for value in _inputs(graph) if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.node:
        yield from _check_tensorrt_node(node, target, initializers, uint8_inputs)
    producer = {name: node for node in graph.node for name in node.output}
    for value in graph.value_info:
        dtype = value.type.tensor_type.elem_type
        if dtype not in (*TENSORRT_DTYPES, *NARROWED_DTYPES, TensorProto.UNDEFINED):
            yield f"{_name(producer[value.name])}: returns {_dtype(dtype)}, which {target.device} does not compute in"


def _check_tensorrt_node(
    node: onnx.NodeProto, target: Target, initializers: dict[str, onnx.TensorProto], uint8_inputs: set[str]
) -> Iterator[str]:
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type not in target.operators:
        yield f"{_name(node)}: {target.device} has no {node.op_type}"
    if uint8_inputs.intersection(node.input) and node.op_type != "Cast":
        yield f"{_name(node)}: {target.device} can only cast a uint8 input, before anything else"
    if node.op_type == "Resize":
        if attributes.get("antialias"):
            yield f"{_name(node)}: {target.device} ignores or refuses antialiasing"
        if attributes.get("mode", b"nearest") not in RESIZE_MODES:
            yield f"{_name(node)}: {target.device} resizes by nearest or linear, not {attributes['mode'].decode()}"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield f"{_name(node)}: {target.device} does not return the indices of a MaxPool"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        zero_point = initializers.get(node.input[2]) if len(node.input) > 2 else None
        if (
            zero_point is None
            or zero_point.data_type != TensorProto.INT8
            or onnx.numpy_helper.to_array(zero_point).any()
        ):
            yield f"{_name(node)}: {target.device} only quantizes to int8 with zero point 0"


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return a graph's inputs, without the weights that old files list among them."""
    initializers = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in initializers]


def _since_version(node: onnx.NodeProto, opset: int) -> int:
    """Return the opset in which a node's operator last changed."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    except onnx.defs.SchemaError:
        return 0


def _name(node: onnx.NodeProto) -> str:
    return f"node {node.name or node.output[0]!r} ({node.op_type})"


def _dtype(code: int) -> str:
    return TensorProto.DataType.Name(code).lower()
