"""The notebook's training panel, operated through its widgets. Its trainings are real processes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import LABELS, PATIENCE, assert_one_line_error, call_here, find_widget, texts_in, wait_until, widgets_in

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
    assert find_widget(panel, "Resume").disabled
    assert find_widget(panel, "Labels").value == LABELS
    find_widget(panel, "Strategy").value, find_widget(panel, "Epochs").value = "differential", 400
    find_widget(panel, "Train").click()
    wait_until(lambda: "<svg" in texts_in(panel) and "epoch" in texts_in(panel))
    assert find_widget(panel, "Train").disabled
    resumed_twice = call_here("train/finetune.py", "--resume", panel.training.run, cwd=Path.cwd())
    assert_one_line_error(resumed_twice, "another process is training into it")
    find_widget(panel, "Stop").click()
    wait_until(lambda: not find_widget(panel, "Resume").disabled)
    assert "stopped: it can go on from there" in texts_in(panel)
    progress = next(widget for widget in widgets_in(panel) if type(widget).__name__ == "FloatProgress")
    before = progress.value
    find_widget(panel, "Resume").click()
    wait_until(lambda: progress.value > before)
    assert panel.training._process.poll() is None


@pytest.mark.slow
def test_the_result_is_that_of_the_chosen_labels(panel):
    find_widget(panel, "Labels").value = LABELS[:2]
    find_widget(panel, "Strategy").value, find_widget(panel, "Epochs").value = "head", 1
    find_widget(panel, "Train").click()
    wait_until(lambda: "validation images" in texts_in(panel))
    wait_until(lambda: not find_widget(panel, "Train").disabled)
    assert (panel.training.run / "report.html").exists()
    assert "thumbs_up" not in json.loads((panel.training.run / "metrics.json").read_text())["labels"]


@pytest.mark.slow
def test_mistakes_are_shown_with_their_images(dataset, make_panel, tmp_path):
    """Two labels of the same images: one of each two predictions is wrong."""
    for label in ("palm", "same"):
        shutil.copytree(dataset / "palm", tmp_path / "data" / label)
    panel = make_panel(tmp_path / "data")
    find_widget(panel, "Strategy").value, find_widget(panel, "Epochs").value = "head", 1
    find_widget(panel, "Train").click()
    wait_until(lambda: "taken for" in texts_in(panel))
    assert "<b>50.0 %</b> accuracy on 8 validation images" in texts_in(panel)
    assert texts_in(panel).count("<img") == texts_in(panel).count("taken for") == 4


@pytest.mark.slow
def test_errors_are_shown(panel):
    find_widget(panel, "Labels").value = LABELS[:1]
    find_widget(panel, "Train").click()
    assert "choose at least two labels" in texts_in(panel)
    find_widget(panel, "Labels").value = LABELS
    find_widget(panel, "Backbone").value = "alexnet"  # whose weights need a download
    os.environ["TORCH_HOME"] = str(Path.cwd())
    try:
        find_widget(panel, "Train").click()
        wait_until(lambda: not find_widget(panel, "Train").disabled)
    finally:
        del os.environ["TORCH_HOME"]
    assert "error: ImageNet weights could not be downloaded" in texts_in(panel)
