"""The notebook panels, used through their widgets."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import CHROMIUM, PATIENCE, ROOT, wait_until

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import list_samples, read_places
from teachcam.collect.ui.panel import CapturePanel
from teachcam.errors import DatasetError
from teachcam.files import write_atomic
from teachcam.live.classifier import Classifier
from teachcam.live.panel import LivePanel
from teachcam.live.teaching.panel import TeachPanel


@pytest.fixture
def panel(tmp_path):
    with Camera("synthetic:palm?seed=1&size=320x240") as camera:
        panel = CapturePanel(camera, ["palm", "none"], tmp_path / "data", fps=15)
        yield panel
        panel.close()


def labels_in(panel) -> list[str]:
    return [sample.label for sample in list_samples(panel.recorder.data)]


def test_it_shows_the_camera_and_records_the_chosen_label(panel):
    wait_until(lambda: bytes(panel._picture.value[:2]) == b"\xff\xd8")
    panel._record.value = True
    wait_until(lambda: panel.recorder.saved["palm"] >= 3)
    panel._labels.value = "none"  # this ends the recording; the next one gets this label
    assert not panel._record.value
    palms, frame = len(labels_in(panel)), panel.recorder._camera.read_frame()
    wait_until(lambda: panel.recorder._camera.read_frame().number > frame.number + 10)
    assert len(labels_in(panel)) == palms
    panel._record.value = True
    wait_until(lambda: panel.recorder.saved["none"] >= 2)
    panel._record.value = False
    assert set(labels_in(panel)) == {"palm", "none"}
    names = dict((label, text) for text, label in panel._labels.options)
    assert names["palm"] == f"palm ({palms})"
    assert bytes(panel._thumbnails.children[-1].value[:2]) == b"\xff\xd8"


def test_undo_and_new_labels(panel):
    panel._record.value = True
    wait_until(lambda: panel.recorder.saved["palm"] >= 2)
    panel._undo.click()
    assert "undone" in panel._message.value
    assert not panel._record.value
    panel._new_label.value = "../x"
    assert "can't name a folder" in panel._message.value
    panel._new_label.value = "fist"
    assert panel._labels.value == panel.recorder.label == "fist"
    assert panel._new_label.value == ""


@pytest.mark.parametrize("method", ["start", "stop", "switch", "undo", "check_writer"])
def test_an_error_of_the_disk_is_a_message(panel, method, monkeypatch):
    def fail(*_):
        raise DatasetError("No space left on device")

    panel._record.value = method != "start"
    monkeypatch.setattr(panel.recorder, method, fail)
    panel._record.value = method not in ("stop", "undo")
    panel._labels.value = "none" if method == "switch" else "palm"
    if method == "undo":
        panel._undo.click()
    wait_until(lambda: panel._message.value == "No space left on device")
    assert not panel._record.value
    monkeypatch.undo()


def test_what_is_recorded_in_it_is_answered_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Camera("synthetic?seed=1&size=320x240&fps=60") as camera:
        panel = TeachPanel(camera, ["palm", "none"], "data", provider="cpu")
        wait_until(lambda: "Record two labels" in panel._progress.value)
        panel.children[1].children[2].click()
        assert "nothing to take along yet" in panel._saved.value
        panel.capture._place.value = "kitchen"
        for label in ("palm", "none"):
            panel.capture._labels.value = label
            panel.capture._record.value = True
            wait_until(lambda label=label: panel.capture.recorder.saved[label] >= 6)
            panel.capture._record.value = False
        wait_until(lambda: panel.live._labels == ("none", "palm"))
        wait_until(lambda: sum(bar.value for bar in panel.live._bars.children) > 0.5)
        wait_until(lambda: "none, palm were recorded in one place only" in panel._progress.value)
        assert set(read_places(tmp_path / "data").values()) == {"kitchen"}
        panel.live._buttons.children[0].click()
        wait_until(lambda: panel.teacher.progress.counts["none"] == panel.capture.recorder.saved["none"] + 1)
        panel.children[1].children[2].click()
        assert Classifier(next(tmp_path.glob("runs/*/model.onnx"))).contract.labels == ("none", "palm")
        panel.capture._undo.click()
        wait_until(lambda: panel.live._labels == ("unknown",))  # the correction alone is too little for a label
        panel.close()
        assert not panel.live._thread.is_alive()


@pytest.mark.slow
@pytest.mark.browser
def test_the_notebook_is_a_page_of_its_own(tmp_path):
    """Voila runs all cells of the notebook, and a real browser records and is answered."""
    pytest.importorskip("voila")
    playwright = pytest.importorskip("playwright.sync_api")
    notebook = shutil.copy(ROOT / "notebooks/studio.ipynb", tmp_path)
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        command = [sys.executable, "-m", "voila", "--no-browser", notebook]
        voila = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "running at" in log.read_text())
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(re.search(r"http://\S+", log.read_text().partition("running at")[2])[0], timeout=1000 * PATIENCE)
            for label in ("thumbs_up", "none"):
                page.get_by_role("button", name=label).first.click(timeout=1000 * PATIENCE)
                page.get_by_role("button", name="Record").click()
                wait_until(lambda label=label: len(list((tmp_path / "data" / label).glob("*.jpg"))) >= 6)
                page.get_by_role("button", name="Record").click()
            page.get_by_text("in one place only").wait_for(timeout=1000 * PATIENCE)
            page.get_by_role("button", name="Refresh").click()
            page.get_by_role("option", name="thumbs_up").wait_for()
            browser.close()
    finally:
        voila.send_signal(signal.SIGTERM)
        voila.wait(PATIENCE)


def test_it_predicts_saves_corrections_and_loads_a_newer_model(run_copy, tmp_path):
    model = run_copy / "model.onnx"
    with Camera("synthetic:palm?seed=1&size=320x240") as camera:
        panel = LivePanel(camera, Classifier(model), tmp_path / "data")
        wait_until(lambda: bytes(panel._picture.value[:2]) == b"\xff\xd8")
        wait_until(lambda: sum(bar.value for bar in panel._bars.children) == pytest.approx(1, abs=1e-3))
        (palm,) = [button for button in panel._buttons.children if button.description == "palm"]
        palm.click()
        assert panel._message.value == "saved as palm (1 so far)"
        assert [sample.label for sample in list_samples(tmp_path / "data")] == ["palm"]
        renamed = model.read_bytes().replace(b'"palm"', b'"hand"')  # same length, so the file stays valid
        write_atomic(model, renamed)
        wait_until(lambda: panel._buttons.children[0].description == "hand")
        panel.close()
        assert not panel._thread.is_alive()
