"""Tuning: what is measured, what is chosen, when it is measured again, and how a running model changes its threads."""

from __future__ import annotations

import numpy as np
import pytest

from teachcam.errors import UserError
from teachcam.export.verify import Validator
from teachcam.live import onnx_model, tuning
from teachcam.live.classifier import Classifier
from teachcam.live.onnx_model import NUM_RECENT, NUM_TRIALS, RUNS_BETWEEN_TRIALS, AdaptiveRunner
from teachcam.live.tuning import Timing, Tuning, open_model
from teachcam.teach.backbone import Backbone


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(tuning, "NUM_RUNS", 3)


def test_the_choice_is_the_fastest_calm_and_the_fastest_busy_of_one_precision():
    timings = (
        Timing("fp32", "cpu", 1, idle_ms=9, loaded_ms=10),
        Timing("fp32", "cpu", 2, idle_ms=5, loaded_ms=16),
        Timing("int8", "cpu", 1, idle_ms=4, loaded_ms=6),
        Timing("int8", "cpu", 2, idle_ms=3, loaded_ms=9),
        Timing("fp32", "cuda", 0, idle_ms=30, loaded_ms=30),
    )
    chosen = Tuning("device", timings)
    assert (chosen.idle, chosen.loaded) == (timings[3], timings[2])
    assert chosen.loaded.describe() == "int8 on cpu, 1 thread"
    assert Tuning("device", timings[:2]).idle.describe() == "fp32 on cpu, 2 threads"


@pytest.mark.slow
def test_it_is_measured_once_and_again_on_another_device(run_copy, dataset, monkeypatch):
    monkeypatch.setattr(Validator, "accuracy_drop", lambda *_: 0.0)  # of images of 64 pixels int8 takes too much
    model = run_copy / "model.onnx"
    assert open_model(model).path == model
    classifier = open_model(model, tune=True, data=dataset)
    (result,) = (run_copy / "tuned").glob("*.json")
    kept = tuning.read_tuning(model)
    assert {timing.precision for timing in kept.timings} == {"fp32", "int8"}
    assert {timing.threads for timing in kept.timings} == set(tuning._thread_counts())
    assert all(timing.idle_ms > 0 and timing.loaded_ms > 0 for timing in kept.timings)
    assert (classifier.path == model) == (kept.idle.precision == "fp32")
    monkeypatch.setattr(tuning, "measure", lambda *_: pytest.fail("measured again"))
    older = result.read_text().replace("idle_ms", "calm").replace("loaded_ms", "busy")
    result.write_text(older)
    assert tuning.read_tuning(model) == kept
    assert open_model(model, tune=True).path == classifier.path
    assert open_model(model, provider="cpu").path == model
    monkeypatch.setattr(tuning, "_device", lambda: "another processor")
    assert tuning.read_tuning(model) is None
    monkeypatch.undo()
    result.write_text("{")
    assert tuning.read_tuning(model) is None


def test_without_images_only_the_models_own_precision_is_measured(run_copy, tmp_path):
    open_model(run_copy / "model.onnx", tune=True, data=tmp_path / "none")
    assert {timing.precision for timing in tuning.read_tuning(run_copy / "model.onnx").timings} == {"fp32"}


def test_the_backbone_of_teaching_is_tuned_too(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    expected = Backbone(tmp_path, "cpu").features(image)
    backbone = Backbone(tmp_path, tune=True)
    kept = tuning.read_tuning(backbone.path)
    assert {(timing.precision, timing.provider) for timing in kept.timings} == {("fp32", "cpu")}
    monkeypatch.setattr(tuning, "measure", lambda *_: pytest.fail("measured again"))
    for tuned in (backbone, Backbone(tmp_path), backbone.clone_for_thread(), backbone.clone_for_background()):
        np.testing.assert_allclose(tuned.features(image), expected, rtol=1e-3, atol=1e-4)


def test_a_file_that_no_provider_runs_is_one_clear_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="not a complete ONNX model"):
        open_model(tmp_path / "model.onnx", tune=True)


def test_the_number_of_threads_changes_no_prediction(run_copy):
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    expected = Classifier(run_copy / "model.onnx", "cpu").classify(image).probabilities
    adaptive = Classifier(run_copy / "model.onnx", "cpu", None, 1)
    assert isinstance(adaptive._runner, AdaptiveRunner)
    for classifier in (adaptive, adaptive.clone_for_thread()):
        for _ in range(NUM_RECENT + NUM_TRIALS + 1):
            assert classifier.classify(image).probabilities == pytest.approx(expected, abs=1e-5)


def test_the_faster_runner_is_used_and_a_slower_one_left_at_once(monkeypatch):
    seconds = {"two threads": 5.0, "one thread": 8.0}
    runs = []

    def timed(runner, _):
        runs.append(runner)
        return runner, seconds[runner]

    monkeypatch.setattr(onnx_model, "_timed", timed)
    runner = AdaptiveRunner("two threads", "one thread")

    def run(count: int) -> list[str]:
        runs.clear()
        for _ in range(count):
            runner(None)
        return list(runs)

    assert run(NUM_RECENT + NUM_TRIALS) == ["two threads"] * NUM_RECENT + ["one thread"] * NUM_TRIALS
    assert set(run(RUNS_BETWEEN_TRIALS)) == {"two threads"}
    assert run(NUM_TRIALS) == ["one thread"] * NUM_TRIALS
    seconds.update({"two threads": 16.0, "one thread": 8.5})  # another program begins
    assert run(NUM_RECENT + NUM_TRIALS + 1)[NUM_RECENT:] == ["one thread"] * (NUM_TRIALS + 1)
    seconds.update({"two threads": 5.0, "one thread": 8.0})  # it ends
    assert run(RUNS_BETWEEN_TRIALS + NUM_TRIALS)[-1] == "two threads"
    assert set(run(NUM_RECENT)) == {"two threads"}
