"""The notebook's training panel, driven through its widgets; its trainings are real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import LABELS, assert_one_line_error, call_here, wait_until

from teachcam.train import panel as panel_module
from teachcam.train.panel import TrainPanel


@pytest.fixture
def panel(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(panel_module, "INTERVAL", 0.05)
    panel = TrainPanel(dataset)
    yield panel
    panel.close()
    if panel._watcher:
        panel._watcher.join(5)
    if panel._process:
        panel._process.kill()
        panel._process.wait()


def test_start_curve_stop_resume(panel, dataset):
    assert panel._resume.disabled
    assert panel._labels.value == LABELS
    panel._strategy.value, panel._epochs.value = "differential", 400
    panel._train.click()
    wait_until(lambda: "<svg" in panel._curves.value and "epoch" in panel._said.value, seconds=90)
    assert panel._train.disabled
    going_on = call_here("train/finetune.py", "--resume", panel.run, cwd=Path.cwd())
    assert_one_line_error(going_on, "another process is training into it")
    panel._stop.click()
    wait_until(lambda: not panel._resume.disabled, seconds=30)
    assert panel._said.value == "stopped: Resume goes on from its last epoch"
    before = panel._bar.value
    panel._resume.click()
    wait_until(lambda: panel._bar.value > before, seconds=90)
    assert panel._process.poll() is None


def test_the_result_with_its_mistakes(panel, dataset):
    panel._labels.value = LABELS[:2]
    panel._strategy.value, panel._epochs.value = "head", 1
    panel._train.click()
    wait_until(lambda: "held-out frames are right" in panel._said.value, seconds=90)
    wait_until(lambda: not panel._train.disabled)
    assert (panel.run / "report.html").exists()
    assert "thumbs_up" not in (panel.run / "metrics.json").read_text().partition('"labels"')[2].partition("]")[0]
    assert panel._mistakes.value.count("<img") == panel._mistakes.value.count("taken for")


def test_what_is_wrong_is_said(panel):
    panel._labels.value = LABELS[:1]
    panel._train.click()
    assert panel._said.value == "choose two labels at least"
    panel._labels.value, panel._backbone.value = LABELS, "alexnet"  # whose weights can't be had without a network
    os.environ["TORCH_HOME"] = str(Path.cwd())
    try:
        panel._train.click()
        wait_until(lambda: not panel._train.disabled, seconds=90)
    finally:
        del os.environ["TORCH_HOME"]
    assert "error: ImageNet weights could not be downloaded" in panel._said.value
