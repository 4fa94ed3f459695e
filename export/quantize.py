"""Convert a float32 ONNX graph to float16, or to int8 by static quantization that is calibrated on real images."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.onnx_model import ONNXModel

from teachcam.errors import ExportError
from teachcam.export.targets import Target
from teachcam.export.verify import OnProgress, track
from teachcam.files import naming

MIN_CALIBRATION_IMAGES = 20  # with fewer, the measured range of the activations is too narrow
LAYERS = ("Conv", "Gemm", "MatMul")  # the operators with weights


def to_half(source: Path, out: Path) -> Path:
    """Convert a float32 graph to float16, except its inputs and outputs and the softmax. Return `out`."""
    # Small probabilities vanish in float16, whose smallest number is 6e-8.
    convert = _part_of_onnxruntime("transformers.float16", "fp16").convert_float_to_float16
    converted = convert(onnx.load(str(source)), keep_io_types=True, op_block_list=["Softmax"])
    ordered = ONNXModel(converted)
    ordered.topological_sort()
    onnx.save(ordered.model, str(out))
    return out


def to_int8(
    source: Path,
    out: Path,
    batches: list[np.ndarray],
    target: Target,
    float_layers: list[str] | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Convert a float32 graph to int8 by static quantization, with weights per channel.

    Args:
        source: The float32 graph.
        out: The file to write.
        batches: Calibration images: the graph's input, [batch, H, W, 3] each. The activations' range is measured on
            them.
        target: Decides how a graph is quantized: for ONNX Runtime on a CPU, or for TensorRT.
        float_layers: Names of nodes to leave in float.
        on_progress: Called before each batch.

    Raises:
        ExportError: There are fewer than `MIN_CALIBRATION_IMAGES` batches.
    """
    if len(batches) < MIN_CALIBRATION_IMAGES:
        raise ExportError(
            f"int8 needs at least {MIN_CALIBRATION_IMAGES} images to calibrate on, there are {len(batches)}",
            "record more, give the dataset's folder with --data DIR, or export fp32 or fp16",
        )
    step = "measuring the range of each layer" + (f", {len(float_layers)} stay exact" if float_layers else "")
    model = onnx.load(str(source))
    with _silence_quantizer():
        quantization.quantize_static(
            str(source),
            str(out),
            _CalibrationReader(track(batches, step, on_progress)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Weights of 7 bits keep processors without VNNI from overflowing (export/saturation.py). Unsigned weights
            # of 8 bits would too, but take twice the time on processors with VNNI (SqueezeNet on an EPYC: 1.18 ms
            # against 0.64).
            reduce_range=not target.for_tensorrt,
            # ONNX Runtime on a CPU is fastest with unsigned activations.
            activation_type=quantization.QuantType.QInt8 if target.for_tensorrt else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_float_nodes(model.graph), *(float_layers or [])],
            extra_options={
                "WeightSymmetric": True,
                **(_tensorrt_options() if target.for_tensorrt else {}),
                "TensorQuantOverrides": _range_of_first_input(model),
            },
        )
    quantized = onnx.load(str(out))
    _share_scale_in_concats(quantized.graph)
    if not target.for_tensorrt:
        _use_pixels_as_quantized(quantized.graph)
    _remove_unused_initializers(quantized.graph)
    onnx.save(quantized, str(out))


def _tensorrt_options() -> dict[str, bool]:
    return {
        # TensorRT needs zero point 0, biases in float, and quantizes the weights itself.
        "ActivationSymmetric": True,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "QuantizeBias": False,
        # Take the mean of each batch's largest activation, not the largest of all: a symmetric range wastes half its
        # steps behind a ReLU, and a smaller one makes up for it (rps, 200 images: 2 labels differ from fp32, not 4).
        "CalibMovingAverage": True,
    }


def rank_layers_by_error(source: Path, quantized: Path, batches: list[np.ndarray]) -> list[str]:
    """Return the names of the layers with weights, the layer with the largest quantization error first.

    Args:
        source: The float32 graph.
        quantized: The same graph in int8.
        batches: Inputs of the graph. The error is the signal-to-noise ratio of a layer's output on them.
    """
    qdq_loss_debug = _part_of_onnxruntime("quantization.qdq_loss_debug", "int8")
    with tempfile.TemporaryDirectory() as folder, naming(folder), _silence_quantizer():
        activations = []
        for number, path in enumerate((source, quantized)):
            with_outputs = Path(folder) / f"{number}.onnx"  # the same graph with all activations as outputs
            qdq_loss_debug.modify_model_output_intermediate_tensors(str(path), str(with_outputs))
            activations.append(qdq_loss_debug.collect_activations(str(with_outputs), _CalibrationReader(batches)))
        matched = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
        errors = qdq_loss_debug.compute_activation_error(matched)
    nodes = onnx.load(str(source)).graph.node
    consumer = {name: node for node in nodes for name in node.input}
    ranked = []
    for node in nodes:
        if node.op_type in LAYERS:
            output = node.output[0]
            if output not in errors and output in consumer:  # the quantizer has fused the layer with its ReLU
                output = consumer[output].output[0]
            if output in errors:
                ranked.append((errors[output]["xmodel_err"], node.name))
    return [name for _, name in sorted(ranked)]


def _part_of_onnxruntime(name: str, precision: str) -> ModuleType:
    """Import a part that older versions do not have, or only with PyTorch."""
    try:
        return import_module(f"onnxruntime.{name}")
    except ImportError:
        raise ExportError(
            f"{precision}: ONNX Runtime {onnxruntime.__version__} is too old to make this model",
            "install 1.14 or newer, or give --precision fp32",
        ) from None


class _CalibrationReader(quantization.CalibrationDataReader):
    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the graph's next input by its name, or None after the last one."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _float_nodes(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of the nodes that always stay in float: all before the first layer, and from the head on.

    The head is a thousandth of the computation, and training on few images leaves it with a wide range of weights:
    in int8, a third of the labels changed.
    """
    layers = [index for index, node in enumerate(graph.node) if node.op_type in LAYERS]
    if not layers:
        first = last = len(graph.node)
    else:
        first, last = layers[0], layers[-1]
        before_head = layers[-2] if len(layers) > 1 else first
        # A head with square roots begins with these, and its small number would be rounded to 0.
        roots = [index for index in range(before_head, last) if graph.node[index].op_type == "Abs"]
        last = roots[0] if roots else last
    for index, node in enumerate(graph.node):
        if not first <= index < last:
            yield node.name


def _range_of_first_input(model: onnx.ModelProto) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return the range of the first layer's input, from a black image to a white one, as `TensorQuantOverrides`.

    Calibration would measure it on the images, and a new room may be brighter than all of them.
    """
    first = next((node.input[0] for node in model.graph.node if node.op_type in LAYERS), None)
    if first is None:
        return {}
    images = model.graph.input[0].name
    before = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([images], [first])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it would warn of each weight that this part of the graph does not use
    ort_session = onnxruntime.InferenceSession(before.SerializeToString(), options, providers=["CPUExecutionProvider"])
    value = ort_session.get_inputs()[0]
    dtype = np.uint8 if value.type == "tensor(uint8)" else np.float32
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    black, white = (ort_session.run(None, {images: np.full(shape, pixel, dtype)})[0] for pixel in (0, 255))
    return {first: [{"rmin": black.min(), "rmax": white.max()}]}


def _share_scale_in_concats(graph: onnx.GraphProto) -> None:
    """Quantize the inputs of each Concat with its output's scale, so that they are copied and not requantized."""
    producer, consumers = _edges(graph)
    scalars = _scalars(graph)
    for concat in (node for node in graph.node if node.op_type == "Concat"):
        output = next((node for node in consumers[concat.output[0]] if node.op_type == "QuantizeLinear"), None)
        if output is None:
            continue
        for name in concat.input:
            dequantize = producer.get(name)
            if not dequantize or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = producer.get(dequantize.input[0])
            if not quantize or quantize.op_type != "QuantizeLinear":
                continue
            only_consumer = len(consumers[name]) == len(consumers[quantize.output[0]]) == 1
            # A zero point that differs may stand for a ReLU, which clips at it.
            if only_consumer and scalars[quantize.input[2]] == scalars[output.input[2]]:
                quantize.input[1:] = dequantize.input[1:] = output.input[1:]


def _use_pixels_as_quantized(graph: onnx.GraphProto) -> None:
    """Feed uint8 pixels to the first layer directly, if they are quantized with scale 1 and zero point 0 anyway."""
    _, consumers = _edges(graph)
    chain: list[onnx.NodeProto] = []
    name = graph.input[0].name
    while len(chain) < 3 and len(consumers[name]) == 1:
        chain.append(consumers[name][0])
        name = chain[-1].output[0]
    if [node.op_type for node in chain] != ["Cast", "Transpose", "QuantizeLinear"]:
        return
    cast, transpose, quantize = chain
    scalars = _scalars(graph)
    if (scalars[quantize.input[1]], scalars[quantize.input[2]]) != (1, 0):
        return
    transpose.input[0] = cast.input[0]
    for dequantize in consumers[quantize.output[0]]:
        dequantize.input[0] = transpose.output[0]
    graph.node.remove(cast)
    graph.node.remove(quantize)
    del graph.value_info[:]  # their types have changed


def _remove_unused_initializers(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _scalars(graph: onnx.GraphProto) -> dict[str, float]:
    """Return the values of the scalar initializers, such as scales and zero points, by name."""
    return {tensor.name: numpy_helper.to_array(tensor).item() for tensor in graph.initializer if not tensor.dims}


def _edges(graph: onnx.GraphProto) -> tuple[dict[str, onnx.NodeProto], dict[str, list[onnx.NodeProto]]]:
    """Return the node that produces each tensor, and the nodes that consume it, by the tensor's name."""
    producer = {name: node for node in graph.node for name in node.output}
    consumers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    return producer, consumers


@contextmanager
def _silence_quantizer() -> Iterator[None]:
    """Hide the quantizer's warnings: they recommend steps that `write_onnx` has already done."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
