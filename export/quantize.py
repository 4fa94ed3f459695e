"""Smaller numbers: a float32 graph in float16, or in int8 by static quantization on the dataset's own frames."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization import qdq_loss_debug
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.parity import ExportError
from export.targets import Target

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
    if target.operators is None:  # ONNX Runtime on a CPU is quick with unsigned activations
        activations, options = quantization.QuantType.QUInt8, {"WeightSymmetric": True}
    else:  # TensorRT wants them around zero, biases in float, and to quantize the weights itself
        activations = quantization.QuantType.QInt8
        options = {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
        }
    with _quiet():
        quantization.quantize_static(
            str(source),
            str(out),
            _Reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=activations,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*_outside(onnx.load(str(source)).graph), *(keep or [])],
            extra_options=options,
        )


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
        return None if frames is None else {"frames": frames}


def _outside(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what stays in float: what comes before the first layer, and the head with what follows.

    The head is a thousandth of the work, and what few frames taught it has a wide range: in int8 it lost a third of
    the labels.
    """
    layers = [index for index, node in enumerate(graph.node) if node.op_type in LAYERS]
    for index, node in enumerate(graph.node):
        if not layers or not layers[0] <= index < layers[-1]:
            yield node.name


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's hints to itself: what it recommends is done in `write_onnx`."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
