"""Test the live command on real files and real ONNX Runtime sessions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import LABELS, PATIENCE, REAL_DATA, ROOT, assert_one_line_error, call

from teachcam.collect.dataset import list_samples
from teachcam.collect.synthetic import render
from teachcam.contract import METADATA_KEY, VERSION
from teachcam.errors import ContractError, ModelError
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export, read_export_config
from teachcam.export.from_torch.graph import write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.targets import TARGETS
from teachcam.images import read_image
from teachcam.live import run
from teachcam.live.classifier import Classifier
from teachcam.live.model_watcher import find_model
from teachcam.live.occlusion import heat_map
from teachcam.onnx_session import predict_probabilities, tied_cores
from teachcam.ridge import RidgeHead
from teachcam.teach.backbone import Backbone
from teachcam.teach.taught_model import TaughtModel
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.inference import InferenceModel, predict
from teachcam.train.report.gradcam import activation_maps


@pytest.fixture
def clip(tmp_path) -> Path:
    """A video file of ten frames: a thumb up in a room that is not in the training data."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for image in render("thumbs_up", 77, 10, 320, 240):
        writer.write(image)
    writer.release()
    return path


def test_an_image_gets_the_same_probabilities_in_training_and_live(trained, dataset):
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    image = cv2.resize(read_image(list_samples(dataset)[0].path), (640, 480))
    evaluated = predict(InferenceModel(checkpoint.network, checkpoint.contract), [image], checkpoint.contract)[0]
    live = Classifier(trained / "model.onnx", "cpu").classify(image)
    assert list(live.probabilities) == list(LABELS)
    assert np.abs(evaluated - list(live.probabilities.values())).max() < 1e-4
    assert live.label == LABELS[evaluated.argmax()]
    assert live.confidence == max(live.probabilities.values())


# Modules that call `preprocess` only within training and timing. Tests of those rooms run them.
OTHER_CALLERS = {
    "teachcam.train.engine.trainer",
}


def test_every_path_to_the_model_calls_preprocess(monkeypatch, run_copy, dataset, tmp_path):
    """Replace `preprocess` in one caller after the other: its results change, so it prepares images in no other way."""
    image = read_image(list_samples(dataset)[0].path)
    checkpoint, path = load_checkpoint(run_copy / "checkpoint.pt"), run_copy / "model.onnx"
    contract, network = checkpoint.contract, checkpoint.network
    model, classifier = InferenceModel(network, contract), Classifier(path, "cpu")
    backbone = Backbone(tmp_path, "cpu")
    head = RidgeHead(np.eye(backbone.feature_size), np.zeros(backbone.feature_size), 1.0, np.zeros(0))
    labels = tuple(map(str, range(backbone.feature_size)))
    taught = TaughtModel(backbone, head, replace(backbone.contract, labels=labels))
    inputs = []
    stub = SimpleNamespace(
        contract=contract, predict_probabilities=lambda array: inputs.append(array) or np.ones(3) / 3
    )
    callers = {
        "teachcam.train.model.inference": lambda: predict(model, [image], contract),
        "teachcam.train.engine.features": lambda: extract_features(network, [image], contract, Context()).numpy(),
        "teachcam.train.report.gradcam": lambda: activation_maps(network, contract, [image], [0])[0],
        "teachcam.onnx_session": lambda: predict_probabilities(path, [image], contract),
        "teachcam.live.classifier": lambda: list(classifier.classify(image).probabilities.values()),
        "teachcam.teach.backbone": lambda: backbone.features(image),
        "teachcam.teach.taught_model": lambda: list(taught.classify(image).probabilities.values()),
        "teachcam.live.occlusion": lambda: (heat_map(stub, image), inputs[-1])[1],
    }
    importers = set()
    for folder in ("teachcam", "collect", "train", "export", "live", "teach"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert "def preprocess(" not in text or file == ROOT / "teachcam/preprocessing.py"
            if re.search(r"^from teachcam\.preprocessing import .*\bpreprocess\b", text, re.MULTILINE):
                name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                importers.add(name if folder == "teachcam" else f"teachcam.{name}")
    assert importers == set(callers) | OTHER_CALLERS
    for name, call_it in callers.items():
        before = np.array(call_it(), float)
        with monkeypatch.context() as patch:
            patch.setattr(
                sys.modules[name], "preprocess", lambda image, contract: np.zeros((*contract.input_size, 3), np.uint8)
            )
            assert np.abs(before - np.array(call_it(), float)).max() > 1e-3, name
        assert np.abs(before - np.array(call_it(), float)).max() < 1e-4, name


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux, where a thread's cores can be chosen")
def test_the_model_runs_on_a_core_to_which_no_other_thread_is_tied(trained):
    own_cores, seen = os.sched_getaffinity(0), []
    threads = set(Path("/proc/self/task").iterdir())
    classifier = Classifier(trained / "model.onnx", "cpu")
    new_threads = [int(path.name) for path in set(Path("/proc/self/task").iterdir()) - threads]
    pinned_cores = set().union(*map(os.sched_getaffinity, new_threads))
    assert tied_cores(classifier.ort_session) == pinned_cores  # what was asked for is what ONNX Runtime did
    if len(own_cores) == 1:
        pytest.skip("needs two cores")
    assert new_threads
    ort_session = classifier.ort_session

    class Spy:
        def run_with_iobinding(self, binding: object) -> None:
            seen.append(os.sched_getaffinity(0))
            ort_session.run_with_iobinding(binding)

    classifier._runner._ort_session = Spy()
    classifier.classify(render("palm", 1, 1)[0])
    assert seen == [own_cores - pinned_cores] != [set()]
    assert os.sched_getaffinity(0) == own_cores


def test_json_prints_a_line_for_every_frame_in_order(trained, clip, tmp_path):
    result = call(
        "live/run.py",
        "--model",
        trained / "model.onnx",
        "--camera",
        clip,
        "--headless",
        "--json",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(10))
    for line in lines:
        assert set(line) == {"frame", "time_s", "label", "confidence", "probabilities", "latency_ms", "age_ms"}
        assert set(line["probabilities"]) == set(LABELS)
        assert line["confidence"] == line["probabilities"][line["label"]] == max(line["probabilities"].values())
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert 0 < line["latency_ms"] <= line["age_ms"]
    assert "10 frames, 0 dropped" in result.stderr


def test_the_newest_run_is_the_default_and_a_newer_checkpoint_is_exported_again(run_copy, clip, monkeypatch, capsys):
    monkeypatch.chdir(run_copy.parent.parent)
    Path("runs/latest").symlink_to("copy")
    model = run_copy / "model.onnx"
    assert run.main(["--camera", str(clip), "--headless", "--max-frames", "3"]) == 0
    assert "exporting" not in capsys.readouterr().err
    os.utime(model, (1, 1))
    assert run.main(["--camera", str(clip), "--headless", "--max-frames", "3"]) == 0
    assert "exporting" in capsys.readouterr().err
    assert model.stat().st_mtime > 1


@pytest.mark.slow
def test_a_checkpoint_is_exported_again_with_the_same_target_and_precision(run_copy):
    checkpoint, model = run_copy / "checkpoint.pt", run_copy / "model.onnx"
    chosen = ExportConfig("jetpack5", "fp16")
    export(checkpoint, model, config=chosen)
    os.utime(model, (1, 1))
    assert find_model(checkpoint) == model
    assert model.stat().st_mtime > 1
    assert read_export_config(model) == chosen
    model.write_bytes(b"no model")
    find_model(checkpoint)
    assert read_export_config(model) == ExportConfig()


def test_a_checkpoint_is_exported_first(run_copy, clip, capsys):
    (run_copy / "model.onnx").unlink()
    assert run.main(["--model", str(run_copy / "checkpoint.pt"), "--camera", str(clip), "--headless"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("    0.00 s  ")
    assert (run_copy / "model.onnx").is_file()


def test_records_an_annotated_video(trained, clip, tmp_path):
    arguments = ["--model", str(trained / "model.onnx"), "--camera", str(clip), "--headless"]
    assert run.main([*arguments, "--record", str(tmp_path / "new/out.mp4")]) == 0
    capture = cv2.VideoCapture(str(tmp_path / "new/out.mp4"))
    frames = [frame for ok, frame in iter(capture.read, (False, None)) if ok]
    assert len(frames) == 10
    original = render("thumbs_up", 77, 1, 320, 240)[0]
    difference = np.abs(frames[0].astype(int) - original).mean(axis=(1, 2))
    assert difference[:20].mean() > 3 * difference[90:150].mean()  # the text is at the top, the bars below


def test_a_closed_pipe_is_no_error(trained, tmp_path):
    command = f"{sys.executable} {ROOT}/live/run.py --model {trained}/model.onnx --camera synthetic --headless --json"
    shell = ["bash", "-c", f"set -o pipefail; {command} | head -n 2"]
    result = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert "Traceback" not in result.stderr


def test_live_needs_no_torch():
    code = "import teachcam.live.run, sys; assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_model_without_a_contract_is_refused(trained, tmp_path):
    graph = onnx.load(str(trained / "model.onnx"))
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "bare.onnx"))
    with pytest.raises(ContractError, match="carries no contract"):
        Classifier(tmp_path / "bare.onnx")


def test_a_contract_of_another_version_is_refused(trained, tmp_path):
    graph = onnx.load(str(trained / "model.onnx"))
    (entry,) = (entry for entry in graph.metadata_props if entry.key == METADATA_KEY)
    entry.value = entry.value.replace(f'"version": {VERSION}', '"version": 99')
    onnx.save(graph, str(tmp_path / "new.onnx"))
    with pytest.raises(ContractError, match="version 99"):
        Classifier(tmp_path / "new.onnx")


def test_a_confidence_below_the_threshold_is_unknown(trained, tmp_path, dataset):
    graph = onnx.load(str(trained / "model.onnx"))
    (entry,) = (entry for entry in graph.metadata_props if entry.key == METADATA_KEY)
    entry.value = entry.value.replace('"unknown_threshold": 0.0', '"unknown_threshold": 1.0')
    onnx.save(graph, str(tmp_path / "strict.onnx"))
    prediction = Classifier(tmp_path / "strict.onnx").classify(read_image(list_samples(dataset)[0].path))
    assert prediction.label == "unknown"
    assert prediction.confidence == max(prediction.probabilities.values())


@pytest.mark.parametrize("labels", [LABELS[:2], (*LABELS, "more")])
def test_a_graph_that_contradicts_its_contract_is_refused(labels, trained, tmp_path):
    graph = onnx.load(str(trained / "model.onnx"))
    (entry,) = (entry for entry in graph.metadata_props if entry.key == METADATA_KEY)
    entry.value = entry.value.replace(json.dumps(list(LABELS)), json.dumps(labels))
    onnx.save(graph, str(tmp_path / "other.onnx"))
    with pytest.raises(ModelError, match="its inputs and outputs contradict its contract"):
        Classifier(tmp_path / "other.onnx")


def test_a_model_that_returns_nan_is_an_error(run_copy):
    checkpoint = load_checkpoint(run_copy / "checkpoint.pt")
    with torch.no_grad():
        checkpoint.network.head.bias.fill_(float("nan"))
    contract = checkpoint.contract
    model = InferenceModel(checkpoint.network, contract)
    write_onnx(run_copy / "nan.onnx", model, contract.input_size, TARGETS["desktop"])
    write_metadata(run_copy / "nan.onnx", contract, {})
    with pytest.raises(ModelError, match="returned nan as a probability"):
        Classifier(run_copy / "nan.onnx")


def test_a_model_that_loads_but_does_not_run_is_an_error(tmp_path):
    graph = """
        <ir_version: 8, opset_import: ["": 13]>
        images_as_indices (uint8[1, 8, 8, 3] images) => (uint8[N] probabilities)
        <uint8[2] line = {1, 2}, int64[1] far = {9}> {
            values = Cast <to = 7> (images)
            largest = ReduceMax <keepdims = 0> (values)
            indices = Add (largest, far)
            probabilities = Gather (line, indices)
        }
    """
    onnx.save(onnx.parser.parse_model(graph), str(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match=r"can't be run: export it again .*out of data bounds"):
        Classifier(tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_recording_is_never_overwritten(trained, clip, tmp_path):
    before = clip.read_bytes()
    arguments = ["--model", trained / "model.onnx", "--camera", clip, "--headless", "--record"]
    assert_one_line_error(call("live/run.py", *arguments, clip, cwd=tmp_path), "must end in .mp4")
    (tmp_path / "there.mp4").write_bytes(b"precious")
    assert_one_line_error(call("live/run.py", *arguments, "there.mp4", cwd=tmp_path), "this file exists")
    assert_one_line_error(call("live/run.py", *arguments, "there.mp4/x.mp4", cwd=tmp_path), "there.mp4")
    assert (clip.read_bytes(), (tmp_path / "there.mp4").read_bytes()) == (before, b"precious")


def test_a_full_disk_behind_stdout_is_one_line(trained, clip, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "live/run.py"),
        "--model",
        str(trained / "model.onnx"),
        "--headless",
        "--json",
    ]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, "--camera", str(clip)], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert_one_line_error(result, "No space left on device")


def test_a_provider_that_is_not_here_is_an_error(trained):
    with pytest.raises(ModelError, match="tensorrt does not work on this machine"):
        Classifier(trained / "model.onnx", "tensorrt")


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_2(trained, tmp_path):
    def live(*arguments):
        return call("live/run.py", *arguments, "--headless", cwd=tmp_path)

    assert_one_line_error(live(), "no run here yet", "teachcam train")
    assert_one_line_error(live("--model", "x.onnx"), "no model at x.onnx")
    (tmp_path / "half.onnx").write_bytes((trained / "model.onnx").read_bytes()[:5000])
    assert_one_line_error(live("--model", "half.onnx"), "half.onnx is not a complete ONNX model")
    good = trained / "model.onnx"
    assert_one_line_error(live("--model", good), "camera 0 does not open")
    assert_one_line_error(live("--model", good, "--camera", "gone.mp4"), "no camera, file or folder")
    assert_one_line_error(live("--model", good, "--max-frames", "0"), "--max-frames")


@pytest.mark.display
def test_the_window_shows_and_closes(trained, tmp_path, display):
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(trained / "model.onnx")]
    process = subprocess.Popen(
        [*command, "--camera", "synthetic?seed=5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    display.wait_for_window("teachcam")
    display.press("q", pictures=0)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert b"frames, " in stderr


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_recording_is_classified_right(tmp_path, monkeypatch, capsys):
    """An easy test: the room of this recording is in the training data."""
    from teachcam.train import finetune

    monkeypatch.chdir(tmp_path)
    options = ["--backbone", "squeezenet1_1", "--strategy", "head", "--out", "runs/thumbs"]
    finetune.main(["--data", str(REAL_DATA / "thumbs"), *options])
    capsys.readouterr()
    run.main(["--camera", str(REAL_DATA / "clips/thumbs.mp4"), "--headless", "--json", "--smoothing", "0"])
    labels = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    truth = []
    for row in (REAL_DATA / "clips/thumbs.tsv").read_text().splitlines()[1:]:
        first, last, label = row.split("\t")
        truth += [label] * (int(last) - int(first) + 1)
    assert len(labels) == len(truth) == 390
    assert np.mean([predicted == true for predicted, true in zip(labels, truth, strict=True)]) >= 0.95
