"""Export: a file is written only if its target can read it and it predicts the same as the trained network."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import LABELS, PATIENCE, assert_one_line_error, call, call_here, wait_until
from onnx import TensorProto, helper, numpy_helper

from teachcam import self_check
from teachcam.collect.dataset import list_samples
from teachcam.contract import METADATA_KEY, Contract, TrainingInfo
from teachcam.errors import ExportError, ModelError
from teachcam.export import engine, metadata, parity, to_onnx
from teachcam.export.conversion import PRECISIONS, ExportConfig
from teachcam.export.from_torch import exporter
from teachcam.export.from_torch.exporter import export
from teachcam.export.from_torch.graph import fold_normalization, write_onnx
from teachcam.export.metadata import EXPORT_KEY, read_metadata
from teachcam.export.parity import Parity, ValidationResult
from teachcam.export.quantize import to_int8
from teachcam.export.saturation import INT16_MAX, find_saturating_layers, worst_pair_sums
from teachcam.export.targets import TARGETS, lint
from teachcam.export.verify import Validator
from teachcam.images import read_image
from teachcam.live import doctor, run
from teachcam.live.classifier import Classifier
from teachcam.live.model_watcher import ModelWatcher
from teachcam.onnx_session import predict_probabilities
from teachcam.preprocessing import preprocess, shrink
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.head import fit_head
from teachcam.train.engine.strategies.gradient import HEAD
from teachcam.train.model.backbones import build_network
from teachcam.train.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from teachcam.train.model.inference import InferenceModel, Normalize


def test_the_file_describes_itself(trained):
    graph = onnx.load(str(trained / "model.onnx"))
    onnx.checker.check_model(graph, full_check=True)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert Contract.from_json(properties[METADATA_KEY]) == load_checkpoint(trained / "checkpoint.pt").contract
    export_info = json.loads(properties[EXPORT_KEY])
    assert (export_info["target"], export_info["precision"], export_info["profile"]) == ("desktop", "fp32", [1, 1, 1])
    assert export_info["for_tensorrt"] is False
    assert export_info["validation"]["parity"] == pytest.approx(
        {"num_images": 60, "same_label": 60, "largest_difference": 0}, abs=1e-5
    )
    assert len(export_info["checkpoint_sha256"]) == 64
    assert [entry.version for entry in graph.opset_import] == [17]
    (images,) = graph.graph.input
    assert images.type.tensor_type.elem_type == TensorProto.UINT8
    assert [size.dim_value for size in images.type.tensor_type.shape.dim] == [1, 64, 64, 3]


def test_describe_prints_the_metadata(trained, tmp_path):
    result = call_here("export/to_onnx.py", "--describe", trained / "model.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["labels"] == "palm, thumbs_down, thumbs_up"
    assert lines["target"] == "desktop: ONNX Runtime"
    assert lines["parity"].startswith("60 of 60 labels")
    (tmp_path / "half.onnx").write_bytes((trained / "model.onnx").read_bytes()[:5000])
    result = call_here("export/to_onnx.py", "--describe", "half.onnx", cwd=tmp_path)
    assert_one_line_error(result, "half.onnx is not a complete ONNX model")


# Other backbones have similar graphs of up to 528 MB: TEACHCAM_EXPORTS=all exports some of them too.
if os.environ.get("TEACHCAM_EXPORTS") == "all":
    BACKBONES = ["squeezenet1_1", "resnet18", "mobilenet_v3_small", "alexnet", "densenet121", "vgg16"]
    EXPORTS = [*itertools.product(BACKBONES, TARGETS, PRECISIONS)]
else:
    EXPORTS = [
        *itertools.product(["squeezenet1_1"], ["desktop", "jetpack4", "jetpack5"], PRECISIONS),
        ("resnet18", "desktop", "int8"),  # its sums and batch norms are quantized, too
        ("resnet18", "jetpack5", "fp16"),
        ("mobilenet_v3_small", "desktop", "int8"),
        ("mobilenet_v3_small", "jetpack5", "int8"),
    ]


@pytest.fixture(scope="module")
def checkpoint(request, dataset, tmp_path_factory) -> Path:
    """A checkpoint of a backbone for small images; the weights are random where no package contains them."""
    weights = "imagenet" if request.param == "squeezenet1_1" else "none"
    network, _ = build_network(request.param, len(LABELS), weights)
    size = (224, 224) if request.param in ("alexnet", "vgg16") else (96, 96)  # their large layers fix the input size
    contract = Contract(LABELS, size, trained_on=TrainingInfo(request.param))
    samples = list_samples(dataset)
    images = [shrink(read_image(sample.path), contract.input_size) for sample in samples]
    with torch.no_grad():  # gives the activations of random layers a usual size
        inputs = torch.from_numpy(np.stack([preprocess(image, contract) for image in images]))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1
        network.train().backbone(Normalize(contract)(inputs))
    features = extract_features(network.eval(), images, contract, Context())
    ids = torch.tensor([LABELS.index(sample.label) for sample in samples])
    fit_head(network, contract, (features, ids), (features, ids), replace(HEAD, epochs=300))
    names = [(sample.label, f"{sample.label}/{sample.path.name}") for sample in samples]
    path = tmp_path_factory.mktemp(request.param) / "checkpoint.pt"
    save_checkpoint(
        path, Checkpoint(network, contract, str(dataset), names[::3], [n for n in names if n not in names[::3]])
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "target", "precision"), EXPORTS, indirect=["checkpoint"])
def test_every_target_and_precision(checkpoint, target, precision, tmp_path):
    if precision == "int8" and checkpoint.parent.name.startswith("mobilenet"):  # its layers lose much in int8
        try:
            validation = export(checkpoint, tmp_path / "model.onnx", config=ExportConfig(target, precision))
        except ExportError:
            assert list(tmp_path.iterdir()) == []
            config = ExportConfig(target, precision, allow_accuracy_drop=True)
            export(checkpoint, tmp_path / "model.onnx", config=config)
        else:
            assert validation.accuracy >= validation.fp32_accuracy - 0.011
        return
    validation = export(checkpoint, tmp_path / "model.onnx", config=ExportConfig(target, precision))
    graph = onnx.load(str(tmp_path / "model.onnx"))
    assert lint(graph, TARGETS[target]) == []
    assert graph.opset_import[0].version == (13 if target == "jetpack4" else 17)
    assert validation.parity.num_images == 60
    # Random weights make labels almost equally probable, so that rounding changes a few.
    assert validation.parity.same_label >= (60 if precision == "fp32" else 57)
    assert validation.parity.largest_difference < {"fp32": 1e-4, "fp16": 0.02, "int8": 0.5}[precision]
    int8 = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == TensorProto.INT8}
    assert bool(int8) == (precision == "int8")
    classifier = Classifier(tmp_path / "model.onnx", "cpu")  # takes uint8 or float32 images
    image = np.full((120, 160, 3), 90, np.uint8)
    assert classifier.classify(image).probabilities == pytest.approx(
        dict(zip(LABELS, predict_probabilities(tmp_path / "model.onnx", [image], classifier.contract)[0], strict=True)),
        abs=1e-6,
    )
    if (precision, target) == ("int8", "desktop"):
        assert 0 < max(worst_pair_sums(graph).values()) <= INT16_MAX
    if precision == "int8":  # int8 weights take a quarter of the space
        size = (tmp_path / "model.onnx").stat().st_size
        assert target != "desktop" or size < 0.45 * checkpoint.stat().st_size


def test_features_are_those_of_the_network(trained):
    saved = load_checkpoint(trained / "checkpoint.pt")
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    ort_session = onnxruntime.InferenceSession(str(trained / "model.onnx"), providers=["CPUExecutionProvider"])
    probabilities, features = ort_session.run(["probabilities", "features"], {"images": images.numpy()})
    with torch.no_grad():
        expected = InferenceModel(saved.network, saved.contract)(images)
    assert probabilities == pytest.approx(expected[0].numpy(), abs=1e-5)
    assert features == pytest.approx(expected[1].numpy(), rel=1e-3, abs=1e-3)


@pytest.mark.filterwarnings("ignore:The default weight init:FutureWarning")
# SqueezeNet's first layer has no padding, ResNet's has; GoogLeNet's normalization can't be folded.
@pytest.mark.parametrize("backbone", ["squeezenet1_1", "resnet18", "googlenet"])
def test_folding_the_normalization_does_not_change_the_output(backbone):
    network, _ = build_network(backbone, 3, "none")
    model = InferenceModel(network, Contract(LABELS, (96, 96)))
    folded = fold_normalization(model, (96, 96))
    assert (folded is model) == (backbone == "googlenet")
    images = torch.randint(0, 256, (4, 96, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        for output, expected in zip(folded(images), model(images), strict=True):
            assert (output - expected).abs().max() < 1e-3 * expected.std()


def quantized_layer(weights: list[list[int]], dtype: type) -> onnx.ModelProto:
    """Return a MatMul with quantized weights [inputs, outputs] and a scale for each output."""
    values = [
        numpy_helper.from_array(np.array(weights, dtype), "weights"),
        numpy_helper.from_array(np.ones(len(weights[0]), np.float32), "scales"),
    ]
    return graph_of(
        ("DequantizeLinear", ["weights", "scales"], ["w"], "dq", {"axis": 1}),
        ("MatMul", ["x", "w"], ["y"], "layer"),
        weights=values,
    )


@pytest.mark.parametrize(
    ("weights", "dtype", "worst"),
    [
        ([[64, 1], [64, 2], [-64, 3]], np.int8, 128 * 255),  # two weights of 7 bits just fit
        ([[127, 1], [2, 2], [-127, 3]], np.int8, 129 * 255),  # only weights of the same sign and output channel add up
        ([[-100, 1], [3, 100], [-100, 3]], np.int8, 200 * 255),
        ([[200], [255], [7]], np.uint8, None),  # products of unsigned weights are added in 32 bits
    ],
)
def test_worst_pair_sums(weights, dtype, worst):
    model = quantized_layer(weights, dtype)
    assert worst_pair_sums(model) == ({} if worst is None else {"layer": worst})
    assert find_saturating_layers(model) == (["layer"] if worst and worst > 32767 else [])


@pytest.mark.slow
def test_a_model_that_predicts_something_else_on_this_machine_is_reported(run_copy, tmp_path, capsys):
    model = run_copy / "model.onnx"
    assert Classifier(model).self_check() < 1e-5
    export(run_copy / "checkpoint.pt", tmp_path / "bare.onnx", config=ExportConfig(check_images=False))
    assert Classifier(tmp_path / "bare.onnx").self_check() is None
    doctor.main(["--model", str(tmp_path / "bare.onnx"), "--camera", "synthetic"])
    assert "contains no images to check its predictions" in capsys.readouterr().out

    graph = onnx.load(str(model))
    entry = next(entry for entry in graph.metadata_props if entry.key == self_check.METADATA_KEY)
    check = json.loads(entry.value)
    entry.value = json.dumps({**check, "probabilities": np.roll(check["probabilities"], 1, 1).tolist()})
    line = "predicts differently here than where it was exported"
    watcher = ModelWatcher(model, "cpu", period=0.02)
    onnx.save(graph, str(model))
    wait_until(lambda: line in capsys.readouterr().err)
    watcher.close()
    assert watcher.take() is None
    with pytest.raises(ModelError, match=line):
        Classifier(model).self_check()
    assert doctor.main(["--model", str(model), "--camera", "synthetic"]) == 2
    assert line in capsys.readouterr().out
    run.main(["--model", str(model), "--camera", "synthetic", "--headless", "--max-frames", "1"])
    assert f"warning: {model} {line}" in capsys.readouterr().err


def test_fixed_and_dynamic_batch(run_copy, dataset):
    file, other = run_copy / "model.onnx", run_copy / "four.onnx"
    image = read_image(list_samples(dataset)[0].path)
    alone = Classifier(file).classify(image)
    export(run_copy / "checkpoint.pt", file, config=ExportConfig(batch_size=16, dynamic_batch=True))
    assert read_metadata(file)[1]["profile"] == [1, 16, 16]
    assert Classifier(file).classify(image).probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    export(run_copy / "checkpoint.pt", other, config=ExportConfig(batch_size=4))
    assert onnxruntime.InferenceSession(str(other)).get_inputs()[0].shape == [4, 64, 64, 3]
    with pytest.raises(ModelError, match="takes 4 images at once"):
        Classifier(other)


def graph_of(
    *nodes, opset: int = 17, dtype: int = TensorProto.FLOAT, shape=(1, 3, 8, 8), weights=()
) -> onnx.ModelProto:
    """Return a graph of a few nodes, from input `x` to output `y`."""
    graph = helper.make_graph(
        [helper.make_node(*node[:3], name=node[3], **(node[4] if len(node) > 4 else {})) for node in nodes],
        "test",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


JETSONS = [name for name in TARGETS if name != "desktop"]
SIZES = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 3, 4, 4])
STEP = helper.make_tensor("step", TensorProto.FLOAT, [], [0.1])
HALF = helper.make_tensor("half", TensorProto.UINT8, [], [128])
ONES = helper.make_tensor("ones", TensorProto.FLOAT, [8], [1.0] * 8)
RESIZE = ("Resize", ["x", "", "", "sizes"], ["y"], "shrink")
RELU = ("Relu", ["x"], ["y"], "act")
CAST = ("Cast", ["x"], ["y"], "to_float", {"to": TensorProto.FLOAT})
LATER = ("Cast", ["z"], ["y"], "to_float", {"to": TensorProto.FLOAT})
TRANSPOSE = ("Transpose", ["x"], ["z"], "transpose")
QUANTIZE = ("QuantizeLinear", ["x", "step", "half"], ["z"], "q")
DEQUANTIZE = ("DequantizeLinear", ["z", "step", "half"], ["y"], "dq")
CUSTOM = ("Custom", ["x"], ["y"], "own", {"domain": "com.example"})
GRAPHS = {  # a graph, the targets that refuse it, and how the first message begins
    "fine": (graph_of(RELU, opset=13), [], ""),
    "dynamic batch": (graph_of(RELU, opset=13, shape=("n", 3, 8, 8)), [], ""),
    "antialiased": (
        graph_of((*RESIZE, {"mode": "linear", "antialias": 1}), opset=18, weights=[SIZES]),
        TARGETS,
        "node 'shrink' (Resize): ",
    ),
    "cubic": (
        graph_of((*RESIZE, {"mode": "cubic"}), opset=13, weights=[SIZES]),
        JETSONS,
        "node 'shrink' (Resize): TensorRT",
    ),
    "opset 19": (graph_of(RELU, opset=19), TARGETS, "node 'act' (Relu): written in opset 19"),
    "opset 17": (graph_of(RELU), ["jetpack4"], "node 'act' (Relu): written in opset 17, TensorRT 8.2 (JetPack 4.6)"),
    "int64 input": (
        graph_of(CAST, opset=13, dtype=TensorProto.INT64),
        TARGETS,
        "node 'to_float' (Cast): input 'x' is int64",
    ),
    "uint8 input": (
        graph_of(CAST, opset=13, dtype=TensorProto.UINT8),
        ["jetpack4"],
        "node 'to_float' (Cast): input 'x'",
    ),
    "uint8 transposed": (
        graph_of(TRANSPOSE, LATER, opset=13, dtype=TensorProto.UINT8),
        JETSONS,
        "node 'transpose' (Transpose): ",
    ),
    "dynamic size": (
        graph_of(RELU, opset=13, shape=(1, 3, "h", 8)),
        TARGETS,
        "node 'act' (Relu): input 'x' has a dynamic size",
    ),
    "layer norm": (
        graph_of(("LayerNormalization", ["x", "ones"], ["y"], "norm"), weights=[ONES]),
        ["jetpack4", "jetpack5"],
        "node 'norm' (LayerNormalization): ",
    ),
    "unsigned": (
        graph_of(QUANTIZE, DEQUANTIZE, opset=13, weights=[STEP, HALF]),
        JETSONS,
        "node 'q' (QuantizeLinear): TensorRT",
    ),
    "custom domain": (graph_of(CUSTOM, opset=13), TARGETS, "node 'own' (Custom): its domain is com.example"),
}


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("name", list(GRAPHS))
def test_lint_names_the_node_that_a_target_refuses(name, target):
    graph, refused_by, message = GRAPHS[name]
    problems = lint(graph, TARGETS[target])
    assert bool(problems) == (target in refused_by)
    if problems:
        assert problems[0].startswith(message)


def test_no_file_is_written_if_the_target_refuses_the_graph(run_copy, monkeypatch):
    (run_copy / "model.onnx").unlink()
    write = exporter.write_onnx

    def write_for_desktop(path, model, size, target, batch):
        write(path, model, size, TARGETS["desktop"], batch)

    monkeypatch.setattr(exporter, "write_onnx", write_for_desktop)
    with pytest.raises(ExportError, match=r"node .* written in opset 17.* reads up to 13 .*no file was written"):
        export(run_copy / "checkpoint.pt", run_copy / "model.onnx", config=ExportConfig("jetpack4"))
    assert not (run_copy / "model.onnx").exists()


def test_no_file_is_written_if_it_predicts_something_else(run_copy, monkeypatch):
    write = exporter.write_onnx

    def write_changed_bias(path, model, *arguments):
        with torch.no_grad():
            model.network.head.bias += torch.tensor([0.01, 0, 0])
            write(path, model, *arguments)

    monkeypatch.setattr(exporter, "write_onnx", write_changed_bias)
    (run_copy / "model.onnx").unlink()
    before = set(run_copy.iterdir())
    with pytest.raises(ExportError, match="no file was written"):
        export(run_copy / "checkpoint.pt", run_copy / "model.onnx")
    assert set(run_copy.iterdir()) == before


def test_parity_counts_equal_labels():
    expected = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert parity.compare(np.roll(expected, 1, 1), expected) == parity.Parity(4, 0, 1.0)
    assert parity.compare(expected[[0, 1, 2, 0]], expected) == parity.Parity(4, 3, 1.0)
    tie = np.array([[0.5, 0.5], [0.5, 0.4]], np.float32)
    assert parity.compare(tie + np.float32([[0, 4e-8], [0, 0]]), tie + np.float32([[4e-8, 0], [0, 0]])).same_label == 2
    assert parity.compare(tie[:, ::-1], tie).same_label == 1
    with pytest.raises(ExportError, match="0 of 4 labels agree"):
        parity.Parity(4, 0, 1.0).require()
    parity.Parity(100, 99, 1e-2).require(parity.TOLERANCE["fp16"])
    with pytest.raises(ExportError, match="99 of 100"):
        parity.Parity(100, 99, 1e-5).require()
    with pytest.raises(ExportError):
        parity.Parity(100, 100, float("nan")).require()


@pytest.mark.slow
def test_int8_that_loses_accuracy_leaves_layers_in_float_or_is_not_written(run_copy, monkeypatch):
    drops = iter([0.30, 0.02, 0.005])
    monkeypatch.setattr(Validator, "accuracy_drop", lambda *_: next(drops))
    out = run_copy / "small.onnx"
    validation = export(run_copy / "checkpoint.pt", out, config=ExportConfig(precision="int8"))
    assert len(validation.float_layers) == 2
    assert read_metadata(out)[1]["validation"]["float_layers"] == validation.float_layers
    graph = onnx.load(str(out)).graph
    producer = {name: node.op_type for node in graph.node for name in node.output}
    in_float = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in producer]
    assert sorted(in_float) == sorted(validation.float_layers)
    out.unlink()
    monkeypatch.setattr(Validator, "accuracy_drop", lambda *_: 0.30)
    with pytest.raises(ExportError, match=r"int8 loses 30.0 points.*no file was written"):
        export(run_copy / "checkpoint.pt", out, config=ExportConfig(precision="int8"))
    assert not out.exists()
    export(run_copy / "checkpoint.pt", out, config=ExportConfig(precision="int8", allow_accuracy_drop=True))


@pytest.mark.parametrize("target", ["desktop", "jetpack5"])
def test_int8_range_covers_all_pixels_and_concats_share_a_scale(target, tmp_path):
    contract = Contract(LABELS, (64, 64))
    network, _ = build_network("squeezenet1_1", 3, "none")
    model, source, out = InferenceModel(network.eval(), contract), tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    if target == "desktop":
        model = fold_normalization(model, (64, 64))
    write_onnx(source, model, (64, 64), TARGETS[target])
    dtype = np.uint8 if TARGETS[target].uint8_input else np.float32
    dark = [np.random.default_rng(seed).integers(0, 80, (1, 64, 64, 3), np.uint8).astype(dtype) for seed in range(20)]
    to_int8(source, out, dark, TARGETS[target])
    features = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            ["features"], {"images": dark[0]}
        )
        for path in (source, out)
    ]
    assert np.corrcoef(features[0][0].ravel(), features[1][0].ravel())[0, 1] > 0.99

    graph = onnx.load(str(out)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv")
    dequantize = producer[first.input[0]]
    if target == "desktop":  # the first layer reads the pixels themselves
        assert values[dequantize.input[1]] == 1
        assert list(producer[dequantize.input[0]].input) == ["images"]
    else:
        assert values[dequantize.input[1]] * 127 == pytest.approx((1 - 0.406) / 0.225, rel=1e-3)
    concats = [node for node in graph.node if node.op_type == "Concat"]
    assert len(concats) == 8
    for concat in concats:
        quantize = next(node for node in graph.node if concat.output[0] in node.input)
        assert {producer[name].input[1] for name in concat.input} == {quantize.input[1]}


def test_int8_needs_20_images_to_calibrate_on(run_copy):
    saved = torch.load(run_copy / "checkpoint.pt", weights_only=True)
    saved["training_files"] = saved["training_files"][:7]
    torch.save(saved, run_copy / "checkpoint.pt")
    result = call_here("export/to_onnx.py", "--checkpoint", "checkpoint.pt", "--precision", "int8", cwd=run_copy)
    assert_one_line_error(result, "int8 needs at least 20 images", "there are 13")


def test_triton_reads_the_model_repository(run_copy):
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    for version in (1, 2):
        command = [
            "--format",
            "triton",
            "--checkpoint",
            str(run_copy / "checkpoint.pt"),
            "--out",
            str(run_copy / "repo"),
        ]
        assert to_onnx.main(command) == 0
        folder = run_copy / "repo/teachcam"
        assert (folder / str(version) / "model.onnx").is_file()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("teachcam", "onnxruntime_onnx", 8)
    assert config.HasField("dynamic_batching")
    ort_session = onnxruntime.InferenceSession(str(folder / "2/model.onnx"), providers=["CPUExecutionProvider"])
    arrays = ort_session.get_inputs() + ort_session.get_outputs()
    for array, tensor in zip(arrays, [*config.input, *config.output], strict=True):
        assert (array.name, array.shape[1:]) == (tensor.name, list(tensor.dims))
        assert {"tensor(uint8)": model_config.TYPE_UINT8, "tensor(float)": model_config.TYPE_FP32}[
            array.type
        ] == tensor.data_type
    assert config.output[0].label_filename == "labels.txt"
    assert (folder / "labels.txt").read_text().split() == list(LABELS)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]


def test_an_engine_path_differs_by_model_tensorrt_and_gpu(trained, tmp_path):
    names = {
        engine.engine_path(tmp_path, model, version, gpu).name
        for model in (trained / "model.onnx", trained / "metrics.json")
        for version in ("8.5.2", "10.3.0")
        for gpu in ("NVIDIA Orin", "NVIDIA Thor")
    }
    assert len(names) == 8
    assert all(name.endswith(".engine") and " " not in name for name in names)


def test_without_trtexec_the_error_says_what_to_run_on_the_device(run_copy):
    export(run_copy / "checkpoint.pt", run_copy / "model.onnx", config=ExportConfig("jetpack5", "fp16", 4, True))
    result = call("export/engine.py", "model.onnx", cwd=run_copy, env={**os.environ, "PATH": str(run_copy)})
    assert_one_line_error(
        result, "trtexec is not installed", "trtexec --onnx=model.onnx", "--fp16", "--maxShapes=images:4x64x64x3"
    )


def test_trtexec_builds_an_engine_once(trained, tmp_path, monkeypatch, capfd):
    trtexec = tmp_path / "trtexec"
    trtexec.write_text(
        "#!/bin/sh\necho '[TensorRT v100300]'\n"
        'for option in "$@"; do case $option in --saveEngine=*) echo engine >>"${option#*=}"; esac; done\n'
    )
    trtexec.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for said in ("built in", "built before"):
        assert engine.main([str(trained / "model.onnx"), "--cache", str(tmp_path)]) == 0
        assert said in capfd.readouterr().out
    (built,) = tmp_path.glob("model-*-trt100300-*.engine")
    assert built.read_text() == "engine\n"
    built.unlink()
    trtexec.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ExportError, match="trtexec failed with exit code 3"):
        engine.main([str(trained / "model.onnx"), "--cache", str(tmp_path)])
    assert not list(tmp_path.glob("*.engine"))


KILL_DURING_WRITE = """
import os, signal
from teachcam.export import to_onnx

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

os.fsync = kill  # called when everything is written, before the old file is replaced
to_onnx.main(["--checkpoint", "checkpoint.pt", "--precision", "fp16"])
"""
KILL_AFTER_REPLACE = """
import os, signal
from teachcam.export import to_onnx

def replace(*paths):
    rename(*paths)
    os.kill(os.getpid(), signal.SIGKILL)

rename, os.replace = os.replace, replace
to_onnx.main(["--checkpoint", "checkpoint.pt", "--precision", "fp16"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "precision"), [(KILL_DURING_WRITE, "fp32"), (KILL_AFTER_REPLACE, "fp16")], ids=["during", "after"]
)
def test_a_killed_export_leaves_the_old_file_or_the_new_one(run_copy, program, precision):
    out = run_copy / "model.onnx"
    files = {path for path in run_copy.iterdir() if not path.name.startswith(".")}
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=run_copy, capture_output=True, text=True, timeout=PATIENCE
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_metadata(out)[1]["precision"] == precision
    assert Classifier(out).self_check() < 0.01
    assert {path for path in run_copy.iterdir() if not path.name.startswith(".")} == files


def test_without_images_the_error_asks_for_their_folder(run_copy, dataset, tmp_path):
    checkpoint = torch.load(run_copy / "checkpoint.pt", weights_only=True)
    checkpoint["data_folder"] = str(tmp_path / "moved")
    torch.save(checkpoint, run_copy / "checkpoint.pt")
    with pytest.raises(ExportError, match="give their folder with"):
        to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt")])
    assert to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt"), "--data", str(dataset)]) == 0


def test_a_bad_checkpoint_is_a_one_line_error(tmp_path):
    assert_one_line_error(call_here("export/to_onnx.py", cwd=tmp_path), "no checkpoint at runs/latest/checkpoint.pt")
    (tmp_path / "x.pt").write_bytes(b"PK nonsense")
    result = call_here("export/to_onnx.py", "--checkpoint", "x.pt", cwd=tmp_path)
    assert_one_line_error(result, "x.pt is damaged or not a checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_full_disk_keeps_the_old_file(run_copy, monkeypatch):
    before, files = (run_copy / "model.onnx").read_bytes(), set(run_copy.iterdir())

    def full_disk(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metadata, "write_atomic", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt")])
    assert (run_copy / "model.onnx").read_bytes() == before
    assert set(run_copy.iterdir()) == files


def test_accuracies_say_whether_the_network_has_learned_the_images():
    result = ValidationResult(Parity(40, 40, 0.0), 40, 0.9, 0.95)
    assert result.accuracies() == "accuracy 0.900 (fp32: 0.950) on 40 validation images"
    learned = replace(result, trained_on_validation=True)
    assert learned.accuracies().endswith("on 40 validation images, which the last training used too")
