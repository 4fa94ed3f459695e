"""The notebook's training panel, operated through its widgets. Its trainings are real processes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import LABELS, PATIENCE, assert_one_line_error, call_here, wait_until

from teachcam.train import panel as panel_module
from teachcam.train.panel import TrainPanel


@pytest.fixture
def make_panel(tmp_path, monkeypatch):
    """A function that makes a panel for a dataset. The panel and its process end with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(panel_module, "POLL_INTERVAL", 0.05)
    panels = []

    def make(data: Path) -> TrainPanel:
        panels.append(TrainPanel(data))
        return panels[-1]

    yield make
    for panel in panels:
        panel.close()
        if panel._watcher:
            panel._watcher.join(PATIENCE)
        if panel.training._process:
            panel.training._process.kill()
            panel.training._process.wait()


@pytest.fixture
def panel(make_panel, dataset) -> TrainPanel:
    return make_panel(dataset)


@pytest.mark.slow
def test_train_stop_and_resume(panel):
    assert panel._resume_button.disabled
    assert panel._labels.value == LABELS
    panel._strategy.value, panel._epochs.value = "differential", 400
    panel._start_button.click()
    wait_until(lambda: "<svg" in panel._curves.value and "epoch" in panel._status.value)
    assert panel._start_button.disabled
    resumed_twice = call_here("train/finetune.py", "--resume", panel.training.run, cwd=Path.cwd())
    assert_one_line_error(resumed_twice, "another process is training into it")
    panel._stop_button.click()
    wait_until(lambda: not panel._resume_button.disabled)
    assert panel._status.value == "stopped: it can go on from there"
    before = panel._progress.value
    panel._resume_button.click()
    wait_until(lambda: panel._progress.value > before)
    assert panel.training._process.poll() is None


@pytest.mark.slow
def test_the_result_is_that_of_the_chosen_labels(panel):
    panel._labels.value = LABELS[:2]
    panel._strategy.value, panel._epochs.value = "head", 1
    panel._start_button.click()
    wait_until(lambda: "validation images" in panel._status.value)
    wait_until(lambda: not panel._start_button.disabled)
    assert (panel.training.run / "report.html").exists()
    assert "thumbs_up" not in json.loads((panel.training.run / "metrics.json").read_text())["labels"]


@pytest.mark.slow
def test_mistakes_are_shown_with_their_images(dataset, make_panel, tmp_path):
    """Two labels of the same images: one of each two predictions is wrong."""
    for label in ("palm", "same"):
        shutil.copytree(dataset / "palm", tmp_path / "data" / label)
    panel = make_panel(tmp_path / "data")
    panel._strategy.value, panel._epochs.value = "head", 1
    panel._start_button.click()
    wait_until(lambda: panel._mistakes.value)
    assert panel._status.value.startswith("<b>50.0 %</b> accuracy on 8 validation images")
    assert panel._mistakes.value.count("<img") == panel._mistakes.value.count("taken for") == 4


def test_errors_are_shown(panel):
    panel._labels.value = LABELS[:1]
    panel._start_button.click()
    assert panel._status.value == "choose at least two labels"
    panel._labels.value, panel._backbone.value = LABELS, "alexnet"  # whose weights need a download
    os.environ["TORCH_HOME"] = str(Path.cwd())
    try:
        panel._start_button.click()
        wait_until(lambda: not panel._start_button.disabled)
    finally:
        del os.environ["TORCH_HOME"]
    assert "error: ImageNet weights could not be downloaded" in panel._status.value
