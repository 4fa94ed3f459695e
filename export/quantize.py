"""Smaller numbers: a float32 graph in float16, or in int8 by static quantization on the dataset's own frames."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import qdq_loss_debug
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from teachcam.errors import ExportError
from teachcam.export.targets import Target

LEAST_FRAMES = 20  # fewer say too little of how large the numbers get
LAYERS = ("Conv", "Gemm", "MatMul")


def to_half(source: Path, out: Path) -> Path:
    """Write a float32 graph in float16; its inputs and outputs, and the softmax, stay as they are. Returns `out`."""
    # Float16 ends at 6e-8, where a softmax has not.
    graph = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True, op_block_list=["Softmax"])
    ordered = ONNXModel(graph)
    ordered.topological_sort()
    onnx.save(ordered.model, str(out))
    return out


def to_int8(source: Path, out: Path, inputs: list[np.ndarray], target: Target, keep: list[str] | None = None) -> None:
    """Write a float32 graph in int8: weights per channel, activations by their range on `inputs`; `keep` stays float.

    `inputs` are what the graph takes, one batch each. Raises ExportError where they are too few.
    """
    if len(inputs) < LEAST_FRAMES:
        raise ExportError(
            f"int8 needs at least {LEAST_FRAMES} frames to learn the range of its numbers from, there are "
            f"{len(inputs)}: say where the dataset is with --data DIR, or export fp32 or fp16"
        )
    if target.operators is None:
        # ONNX Runtime on a CPU is quickest with unsigned activations. Weights of 7 bits keep the sums of processors
        # without VNNI from overflowing (export/saturation.py). Unsigned weights of 8 bits do so too, but take twice
        # the time where there is VNNI (SqueezeNet on an EPYC: 1.18 ms for 0.64).
        activations, options = quantization.QuantType.QUInt8, {"WeightSymmetric": True}
    else:  # TensorRT wants them around zero, biases in float, and to quantize the weights itself
        activations = quantization.QuantType.QInt8
        options = {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
            # Symmetric ranges waste half their steps behind a ReLU; the mean of each batch's largest value leaves more
            # of them than the largest of all (rps, 200 images: 2 labels differ from fp32, where 4 did).
            "CalibMovingAverage": True,
        }
    whole = onnx.load(str(source))
    options["TensorQuantOverrides"] = _range_of_first_input(whole)
    with _quiet():
        quantization.quantize_static(
            str(source),
            str(out),
            _Reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=target.operators is None,
            activation_type=activations,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_outside(whole.graph), *(keep or [])],
            extra_options=options,
        )
    model = onnx.load(str(out))
    _join_alike(model.graph)
    if target.operators is None:
        _take_pixels_as_they_are(model.graph)
    _drop_unread_weights(model.graph)
    onnx.save(model, str(out))


def worst_layers(source: Path, quantized: Path, inputs: list[np.ndarray]) -> list[str]:
    """Return the names of the layers with weights, the one that int8 distorts most first (by signal to noise)."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        activations = []
        for number, path in enumerate((source, quantized)):
            opened = Path(folder) / f"{number}.onnx"
            qdq_loss_debug.modify_model_output_intermediate_tensors(str(path), str(opened))
            activations.append(qdq_loss_debug.collect_activations(str(opened), _Reader(inputs)))
        matched = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
        errors = qdq_loss_debug.compute_activation_error(matched)
    nodes = onnx.load(str(source)).graph.node
    reader = {name: node for node in nodes for name in node.input}
    known = []
    for node in nodes:
        if node.op_type in LAYERS:
            output = node.output[0]
            if output not in errors and output in reader:  # a ReLU that the layer has taken in
                output = reader[output].output[0]
            if output in errors:
                known.append((errors[output]["xmodel_err"], node.name))
    return [name for _, name in sorted(known)]


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, inputs: list[np.ndarray]):
        self._coming = iter(inputs)

    def get_next(self) -> dict | None:
        """Return the next input by name, or None."""
        frames = next(self._coming, None)
        return None if frames is None else {"images": frames}


def _outside(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what stays in float: what comes before the first layer, and the head with what follows.

    The head is a thousandth of the work, and what few frames taught it has a wide range: in int8 it lost a third of
    the labels.
    """
    layers = [index for index, node in enumerate(graph.node) if node.op_type in LAYERS]
    for index, node in enumerate(graph.node):
        if not layers or not layers[0] <= index < layers[-1]:
            yield node.name


def _range_of_first_input(model: onnx.ModelProto) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return what the first layer's input can be, from black to white: a new room may be brighter than the frames."""
    first = next((node.input[0] for node in model.graph.node if node.op_type in LAYERS), None)
    if first is None:
        return {}
    frames = model.graph.input[0]
    before = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([frames.name], [first])
    session = onnxruntime.InferenceSession(before.SerializeToString(), providers=["CPUExecutionProvider"])
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    black, white = (session.run(None, {frames.name: np.full(shape, value, dtype)})[0] for value in (0, 255))
    return {first: [{"rmin": black.min(), "rmax": white.max()}]}


def _join_alike(graph: onnx.GraphProto) -> None:
    """Quantize what is concatenated by the concatenation's own scale: it is copied then, not converted once more."""
    made, readers = _wires(graph)
    scalars = _scalars(graph)
    for join in (node for node in graph.node if node.op_type == "Concat"):
        after = next((node for node in readers[join.output[0]] if node.op_type == "QuantizeLinear"), None)
        for name in join.input if after else ():
            back = made.get(name)
            there = made.get(back.input[0]) if back else None
            if not there or [there.op_type, back.op_type] != ["QuantizeLinear", "DequantizeLinear"]:
                continue
            alone = len(readers[name]) == len(readers[there.output[0]]) == 1
            if alone and scalars[there.input[2]] == scalars[after.input[2]]:  # a zero point may stand for a ReLU
                there.input[1:] = back.input[1:] = after.input[1:]


def _take_pixels_as_they_are(graph: onnx.GraphProto) -> None:
    """Let the first layer read the frame's own bytes, where quantizing them is a cast and a step of 1 from 0."""
    readers = _wires(graph)[1]
    chain, name = [], graph.input[0].name
    while len(chain) < 3 and len(readers[name]) == 1:
        chain.append(readers[name][0])
        name = chain[-1].output[0]
    if [node.op_type for node in chain] != ["Cast", "Transpose", "QuantizeLinear"]:
        return
    cast, turn, there = chain
    scalars = _scalars(graph)
    if (scalars[there.input[1]], scalars[there.input[2]]) != (1, 0):
        return
    turn.input[0] = cast.input[0]
    for back in readers[there.output[0]]:
        back.input[0] = turn.output[0]
    graph.node.remove(cast)
    graph.node.remove(there)
    del graph.value_info[:]  # of other types now


def _drop_unread_weights(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _scalars(graph: onnx.GraphProto) -> dict[str, float]:
    return {tensor.name: numpy_helper.to_array(tensor).item() for tensor in graph.initializer if not tensor.dims}


def _wires(graph: onnx.GraphProto) -> tuple[dict[str, onnx.NodeProto], dict[str, list[onnx.NodeProto]]]:
    """Return which node makes a tensor, and which ones read it, by its name."""
    made = {name: node for node in graph.node for name in node.output}
    readers = {name: [] for name in [*made, *(tensor.name for tensor in graph.input)]}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return made, readers


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's hints to itself: what it recommends is done in `write_onnx`."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
