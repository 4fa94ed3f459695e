"""Write what was taught as an ordinary model file: the backbone, the head, and the contract in one ONNX graph."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from teachcam.contract import TrainingInfo
from teachcam.errors import UserError
from teachcam.export.metadata import publish, write_metadata
from teachcam.export.parity import Parity, compare
from teachcam.images import read_image
from teachcam.live.teaching.backbone import Backbone
from teachcam.live.teaching.taught_model import TaughtModel
from teachcam.live.teaching.teacher import Teacher
from teachcam.onnx_session import predict_probabilities
from teachcam.processor import processor_name
from teachcam.ridge import SQRT_EPSILON
from teachcam.self_check import SelfCheck

MAX_IMAGES = 200  # of the dataset, that both models must agree on


def save_model(path: Path, teacher: Teacher) -> Parity:
    """Write what was taught as a model file, if it predicts the same. Any thread may call it.

    Args:
        path: The ONNX file. It is replaced only after the check.
        teacher: Its newest model is written. Some images of its dataset go into the file, for the self check.

    Returns:
        What the check measured.

    Raises:
        UserError: Nothing has been taught yet.
        ExportError: The predictions differ, or the file can't be written.
    """
    model, progress = teacher.model.clone_for_thread(), teacher.progress
    examples = [sample for sample in teacher.examples() if sample.label in model.contract.labels]
    step = -(-len(examples) // MAX_IMAGES) or 1
    images = [read_image(sample.path) for sample in examples[::step] if sample.path.is_file()]
    if model.head is None or not images:
        raise UserError("nothing to take along yet: record two labels, five images each")
    contract = replace(
        model.contract,
        trained_on=TrainingInfo(
            backbone=Backbone.name,
            head="sqrt_unknown" if model.head.bias.size > len(model.contract.labels) else "sqrt",
            validation_accuracy=progress.accuracy,
            validation_images=progress.num_judged,
            trained_on_validation=True,
            optimistic=bool(progress.labels_of_one_scene),
            processor=processor_name(),
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(_add_head(onnx.load(str(model.path)), model), str(file))
        expected = np.array([list(model.classify(image).probabilities.values()) for image in images])
        parity = compare(predict_probabilities(file, images, contract), expected)
        parity.require()
        write_metadata(file, contract, {}, SelfCheck.create(file, images, contract, "fp32"))
        publish(file, path)
    return parity


def _add_head(backbone: onnx.ModelProto, model: TaughtModel) -> onnx.ModelProto:
    """Return the graph with the output `probabilities` added: signed square roots, linear, temperature, softmax."""
    graph, num_labels = backbone.graph, len(model.contract.labels)
    constants = {
        "epsilon": np.array(SQRT_EPSILON, np.float32),
        "weight": (model.head.weight / model.contract.temperature).astype(np.float32),
        "bias": (model.head.bias / model.contract.temperature).astype(np.float32),
        "first": np.array([0]),
        "end": np.array([num_labels]),
        "axis": np.array([1]),
    }
    graph.initializer.extend(numpy_helper.from_array(value, f"head.{name}") for name, value in constants.items())
    for operator, inputs, output in (
        ("Abs", ["features"], "head.magnitude"),
        ("Add", ["head.magnitude", "head.epsilon"], "head.shifted"),
        ("Sqrt", ["head.shifted"], "head.root"),
        ("Div", ["features", "head.root"], "head.inputs"),
        ("Gemm", ["head.inputs", "head.weight", "head.bias"], "head.logits"),
        ("Softmax", ["head.logits"], "head.all"),  # over the last axis, in every opset
        ("Slice", ["head.all", "head.first", "head.end", "head.axis"], "probabilities"),  # without that for no label
    ):
        graph.node.append(helper.make_node(operator, inputs, [output], output))
    graph.output.insert(0, helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, num_labels]))
    return backbone
