"""The notebook: the panel that records, used through its widgets, and the studio in a cell."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
from conftest import CHROMIUM, PATIENCE, ROOT, find_widget, texts_in, wait_until, widgets_in

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import list_samples, read_places
from teachcam.collect.ui.panel import CapturePanel
from teachcam.errors import DatasetError
from teachcam.teach.notebook import StudioFrame


@pytest.fixture
def panel(tmp_path):
    with Camera("synthetic:palm?seed=1&size=320x240") as camera:
        panel = CapturePanel(camera, ["palm", "none"], tmp_path / "data", fps=15)
        yield panel
        panel.close()


def count(panel, label: str) -> int:
    """Return how many images of a label are in the dataset."""
    return len(list((panel.recorder.data / label).glob("*.jpg")))


def pictures(panel) -> list[bytes]:
    return [bytes(widget.value) for widget in widgets_in(panel) if type(widget).__name__ == "Image"]


def test_it_shows_the_camera_and_records_the_chosen_label(panel):
    record, labels = find_widget(panel, "Record"), find_widget(panel, "Label")
    wait_until(lambda: pictures(panel)[0].startswith(b"\xff\xd8"))
    record.value = True
    wait_until(lambda: count(panel, "palm") >= 3)
    labels.value = "none"  # this ends the recording; the next one gets this label
    assert not record.value
    palms, frame = count(panel, "palm"), panel.camera.read_frame()
    wait_until(lambda: panel.camera.read_frame().number > frame.number + 10)
    assert [sample.label for sample in list_samples(panel.recorder.data)] == ["palm"] * palms
    record.value = True
    wait_until(lambda: count(panel, "none") >= 2)
    record.value = False
    assert {sample.label for sample in list_samples(panel.recorder.data)} == {"palm", "none"}
    assert (f"palm ({palms})", "palm") in labels.options
    assert pictures(panel)[-1].startswith(b"\xff\xd8")


def test_undo_new_labels_and_places(panel):
    record, new_label = find_widget(panel, "Record"), find_widget(panel, "add a label")
    find_widget(panel, "Place").value = "kitchen"
    record.value = True
    wait_until(lambda: count(panel, "palm") >= 2)
    assert set(read_places(panel.recorder.data).values()) == {"kitchen"}
    find_widget(panel, "Undo").click()
    assert "undone" in texts_in(panel)
    assert not record.value
    new_label.value = "../x"
    assert "can't name a folder" in texts_in(panel)
    new_label.value = "fist"
    assert find_widget(panel, "Label").value == panel.recorder.label == "fist"
    assert new_label.value == ""


@pytest.mark.parametrize("method", ["start", "stop", "set_label", "undo", "check_writer"])
def test_an_error_of_the_disk_is_a_message(panel, method, monkeypatch):
    def fail(*_):
        raise DatasetError("No space left on device")

    record = find_widget(panel, "Record")
    record.value = method != "start"
    monkeypatch.setattr(panel.recorder, method, fail)
    record.value = method not in ("stop", "undo")
    find_widget(panel, "Label").value = "none" if method == "set_label" else "palm"
    if method == "undo":
        find_widget(panel, "Undo").click()
    wait_until(lambda: "No space left on device" in texts_in(panel))
    assert not record.value
    monkeypatch.undo()


def test_the_studio_in_a_cell_is_the_page_and_closing_it_frees_the_port(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ask(path: str, **values: str):
        request = Request(studio.src + path, json.dumps(values).encode() if values else None)
        request.add_header("Content-Type", "application/json")
        return urlopen(request, timeout=PATIENCE)

    with Camera("synthetic?seed=1&size=320x240") as camera:
        studio = StudioFrame(camera, "data", provider="cpu")
        assert f'src="{studio.src}"' in studio._repr_html_()
        with ask("") as reply:
            policy = reply.headers["Content-Security-Policy"]
        assert policy.endswith("frame-ancestors http://localhost:* http://127.0.0.1:*")
        for action in ("add", "record"):
            ask(f"studio/{action}", label="palm").close()
        wait_until(lambda: len(list((tmp_path / "data/palm").glob("*.jpg"))) >= 3)
        studio.close()
        again = StudioFrame(camera, "data", studio.src.rstrip("/").rpartition(":")[2], "cpu")
        assert again.src == studio.src
        again.close()
        with pytest.raises(OSError, match="refused"):
            ask("")


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
            page.set_default_timeout(1000 * PATIENCE)
            studio = page.frame_locator("iframe")
            for number, label in enumerate(("thumbs_up", "none"), 1):
                studio.get_by_label("name of a new label").fill(label)
                studio.get_by_role("button", name="Add label").click()
                studio.get_by_role("heading", name=label).click()  # the keys go to the frame, and to no field
                page.keyboard.down(str(number))
                wait_until(lambda label=label: len(list((tmp_path / "data" / label).glob("*.jpg"))) >= 6)
                page.keyboard.up(str(number))
            studio.get_by_text("in one place only").wait_for()

            def lists_labels() -> bool:
                """Press until it is answered: a kernel's connection that was lost meanwhile is made again."""
                page.get_by_role("button", name="Refresh").click()
                page.wait_for_timeout(500)
                return page.get_by_role("option", name="thumbs_up").count() > 0

            wait_until(lists_labels)
            browser.close()
    finally:
        voila.send_signal(signal.SIGTERM)
        voila.wait(PATIENCE)
