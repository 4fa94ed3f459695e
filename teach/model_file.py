"""Write what was taught as an ordinary model file: the backbone, the head, and the contract in one ONNX graph."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from teachcam.collect.dataset import Sample
from teachcam.contract import Contract, TrainingInfo
from teachcam.errors import ExportError, UnreadableImage, UserError
from teachcam.export.conversion import ExportConfig, convert
from teachcam.export.parity import ValidationResult
from teachcam.export.targets import TARGETS
from teachcam.export.verify import OnProgress, Validator, sample_evenly, track
from teachcam.files import naming
from teachcam.images import read_image
from teachcam.onnx_session import make_batches
from teachcam.preprocessing import shrink
from teachcam.processor import processor_name
from teachcam.ridge import RidgeHead
from teachcam.ridge_inputs import SQRT_EPSILON
from teachcam.teach.backbone import Backbone
from teachcam.teach.taught_model import TaughtModel
from teachcam.teach.teacher import Teacher


class Taught(NamedTuple):
    """A taught model in a form that another process can write to a file."""

    backbone: Path  # its folder
    head: RidgeHead
    contract: Contract
    samples: list[Sample]  # some images that it has learned


def save_model(path: Path, teacher: Teacher, config: ExportConfig | None = None) -> ValidationResult:
    """Write what was taught as a model file, if it predicts the same. Any thread may call it.

    Args:
        path: The ONNX file. It is replaced only after all checks have passed.
        teacher: Its newest model is written. Some images of its dataset go into the file, for the self check.
        config: Target and precision; by default fp32 for a desktop. The batch size is 1.

    Returns:
        What was measured with the file.

    Raises:
        UserError: Nothing has been taught yet.
        ExportError: A check failed, or the file can't be written.
    """
    return write_taught(what_is_taught(teacher), path, config or ExportConfig())


def what_is_taught(teacher: Teacher) -> Taught:
    """Return what was taught until now. Raises UserError if that is nothing."""
    model, progress = teacher.model, teacher.progress
    examples = [sample for sample in teacher.examples() if sample.label in model.contract.labels]
    samples = sample_evenly(sorted(examples, key=lambda sample: sample.path))
    if model.head is None or not samples:
        raise UserError("nothing to take along yet: record two labels, five images each")
    contract = replace(
        model.contract,
        trained_on=TrainingInfo(
            backbone=Backbone.name,
            head="sqrt_unknown" if model.head.bias.size > len(model.contract.labels) else "sqrt",
            validation_accuracy=progress.accuracy,
            validation_images=progress.num_evaluated,
            trained_on_validation=True,
            optimistic=bool(progress.labels_of_one_scene),
            processor=processor_name(),
        ),
    )
    return Taught(model.path.parent, model.head, contract, samples)


def write_taught(
    taught: Taught, path: Path, config: ExportConfig, on_progress: OnProgress | None = None
) -> ValidationResult:
    """Write what was taught as a model file. Raises as `save_model` does.

    Args:
        taught: What was taught.
        path: The ONNX file.
        config: Target and precision.
        on_progress: Called with what is done, in plain words, and the part of that, 0 to 1.
    """
    contract, images = taught.contract, []
    for sample in taught.samples:
        with suppress(UnreadableImage):  # moved or removed since; the others are enough
            images.append((shrink(read_image(sample.path), contract.input_size), sample.label))
    if not images:
        raise ExportError("the images were moved or removed meanwhile: take the model along again")
    model = TaughtModel(Backbone(taught.backbone, "cpu"), taught.head, contract)

    def predict(images: list[np.ndarray]) -> np.ndarray:
        batches = track(make_batches(images, contract, np.uint8, 1), "looking at the images", on_progress)
        return np.array([model.predict_probabilities(batch[0]) for batch in batches])

    validator = Validator(contract, predict, images[::2], images[1::2], on_progress)
    with tempfile.TemporaryDirectory() as folder, naming(folder):
        source = Path(folder) / "fp32.onnx"
        graph = _add_head(onnx.load(str(model.path)), taught)
        if not TARGETS[config.target].uint8_input:
            graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT  # its cast is then for nothing
        onnx.save(graph, str(source))
        return convert(source, path, validator, config, {})


def _add_head(backbone: onnx.ModelProto, taught: Taught) -> onnx.ModelProto:
    """Return the graph with the output `probabilities` added: signed square roots, linear, temperature, softmax."""
    graph, head, contract = backbone.graph, taught.head, taught.contract
    num_labels = len(contract.labels)
    constants = {
        "epsilon": np.array(SQRT_EPSILON, np.float32),
        "weight": (head.weight / contract.temperature).astype(np.float32),
        "bias": (head.bias / contract.temperature).astype(np.float32),
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
