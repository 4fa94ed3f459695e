"""The studio: recording and caring for labels, its routes, and the whole way in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CHROMIUM, LABELS, ROOT, assert_one_line_error, call, record, see, wait_until

from teachcam.background_training import BackgroundTraining
from teachcam.collect.camera import Camera
from teachcam.collect.dataset import REJECTED, list_samples, read_places
from teachcam.collect.hands import SECONDS_PER_LABEL, label_at
from teachcam.errors import DatasetError, UserError
from teachcam.live.loop import loop
from teachcam.live.teaching import studio as studio_module
from teachcam.live.teaching.backbone import Backbone
from teachcam.live.teaching.better_model import why_no_training
from teachcam.live.teaching.studio import Studio
from teachcam.live.teaching.teacher import Teacher
from teachcam.live.web.server import Web


class Fixture:
    """A studio with an open synthetic camera."""

    def __init__(self, folder: Path, backbone: Backbone):
        self.data = folder / "data"
        self.camera = Camera("synthetic?seed=3&fps=60")
        self.teacher = Teacher(self.data, backbone)
        self.studio = Studio(self.camera, self.data, self.teacher, folder / "runs")

    def hold(self, label: str, images: int) -> int:
        """Record some images of a label."""
        self.studio.record(label)
        wait_until(lambda: self.counts()[label] >= images)
        return self.studio.stop()

    def counts(self) -> dict[str, int]:
        state = self.studio._make_state()
        return {label["name"]: label["count"] for label in state["labels"]}

    def close(self) -> None:
        self.studio.close()
        self.teacher.close()
        self.camera.close()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Backbone:
    return Backbone(tmp_path_factory.mktemp("backbone"), "cpu")


@pytest.fixture
def opened(tmp_path, backbone):
    fixture = Fixture(tmp_path, backbone)
    yield fixture
    fixture.close()


def test_what_is_recorded_is_in_the_dataset_and_learned(opened):
    for label in ("a", "b"):
        opened.studio.add_label(label)
    opened.studio.set_place("kitchen")
    counts = {label: opened.hold(label, 5) for label in ("a", "b")}
    assert opened.counts() == counts
    samples = list_samples(opened.data)
    assert len(samples) == sum(counts.values())
    assert {sample.scene for sample in samples} == {"kitchen"}
    assert opened.teacher.wait(20)
    state = opened.studio._make_state()
    assert state["ready"]
    assert state["places"] == ["kitchen"]
    assert "optimistic: a, b were recorded in one place only" in state["accuracy"]
    assert opened.studio.undo() == counts["b"]
    assert opened.counts() == {"a": counts["a"], "b": 0}
    assert opened.teacher.wait(20)
    assert not opened.studio._make_state()["ready"]


def test_labels_and_images_can_be_moved_and_nothing_is_deleted(opened):
    record(opened.data, [0], LABELS, frames=3)
    opened.studio.refresh()
    newest = opened.studio.images("palm")[0]
    assert newest > opened.studio.images("palm")[1]
    opened.studio.move_image("palm", newest, "thumbs_up")
    opened.studio.move_image("thumbs_up", newest, None)
    assert (opened.data / REJECTED / "thumbs_up" / newest).is_file()
    opened.studio.rename_label("palm", "hand")
    assert opened.studio.remove_label("thumbs_up") == 3
    assert opened.counts() == {"hand": 2, "thumbs_down": 3}
    assert len(list((opened.data / REJECTED / "thumbs_up").iterdir())) == 4
    for action, arguments in (
        (opened.studio.rename_label, ("hand", "thumbs_down")),
        (opened.studio.rename_label, ("hand", "a/b")),
        (opened.studio.add_label, ("hand",)),
        (opened.studio.record, ("palm",)),
        (opened.studio.images, ("../..",)),
        (opened.studio.image_path, ("hand", "../sessions.jsonl")),
        (opened.studio.move_image, ("hand", opened.studio.images("hand")[0], "palm")),
        (opened.studio.set_place, ("  ",)),
    ):
        with pytest.raises(DatasetError):
            action(*arguments)
    assert opened.counts() == {"hand": 2, "thumbs_down": 3}


def test_undo_leaves_images_alone_that_were_moved_to_another_label(opened):
    opened.studio.add_label("a")
    opened.studio.add_label("b")
    count = opened.hold("a", 3)
    moved = opened.studio.images("a")[0]
    opened.studio.move_image("a", moved, "b")
    assert opened.studio.undo() == count - 1
    assert opened.counts() == {"a": 0, "b": 1}


def test_a_recording_ends_by_itself_when_its_page_is_gone(opened, monkeypatch):
    monkeypatch.setattr(studio_module, "RECORD_TIMEOUT", 0.3)
    opened.studio.add_label("a")
    opened.studio.record("a")

    def frames_go_on() -> bool:
        opened.studio.look(opened.camera.read_frame())
        return opened.studio._make_state()["recording"] is None

    wait_until(frames_go_on)
    assert opened.counts()["a"] >= 1


def test_a_full_disk_is_said_and_what_was_recorded_stays(opened, monkeypatch):
    opened.studio.add_label("a")
    saved = opened.hold("a", 2)

    def full(*_):
        raise OSError(28, "No space left on device", "file")

    monkeypatch.setattr("teachcam.collect.dataset.write_atomic", full)
    opened.studio.record("a")
    time.sleep(0.5)
    with pytest.raises(DatasetError, match="No space left on device"):
        opened.studio.stop()
    assert opened.counts()["a"] == len(list_samples(opened.data)) == saved


def test_where_training_is_not_possible_it_says_why(opened, monkeypatch):
    assert why_no_training() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_no_training().startswith("training needs torch, torchvision, timm: pip install")
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    assert why_no_training().startswith("training needs Python 3.10")
    opened.studio.better._impossible = why_no_training()
    with pytest.raises(UserError, match=r"Python 3\.10"):
        opened.studio.better.train()


class Client:
    """An HTTP client of a page."""

    def __init__(self, url: str):
        self.port = int(url.split("/")[2].rpartition(":")[2])

    def ask(self, method: str, path: str, body: object = None, headers: dict | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", **(headers or {})} if method == "POST" else headers or {}
        connection.request(method, path, json.dumps(body) if method == "POST" else None, headers)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, content

    def act(self, action: str, **values: str):
        status, content = self.ask("POST", f"/studio/{action}", values)
        return status, json.loads(content)

    def state(self) -> dict:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/events")
        line = connection.getresponse().readline()
        connection.close()
        return json.loads(line[6:])


@pytest.fixture
def page(opened):
    web = Web("127.0.0.1", 0, [], opened.camera, studio=opened.studio)
    yield Client(web.url)
    web.close()


def test_the_routes(page, opened):
    assert page.act("add", label="a") == (200, {"result": None})
    assert page.act("add", label="a")[0] == 409
    assert page.act("fly")[0] == 404
    assert page.act("add")[0] == page.act("add", label="a", more="b")[0] == 400
    assert page.ask("POST", "/studio/add", {"label": 3})[0] == 400
    assert page.ask("POST", "/studio/add", ["a"])[0] == 400
    assert page.ask("POST", "/studio/add", {"label": "x" * 5000})[0] == 413
    assert page.ask("POST", "/studio/add", {"label": "b"}, {"Origin": "http://elsewhere.example"})[0] == 403
    assert page.act("export", target="desktop", precision="fp32")[0] == 409
    assert page.ask("GET", "/studio/model?name=model.onnx")[0] == 409
    assert page.act("record", label="a")[0] == 200
    wait_until(lambda: opened.counts()["a"] >= 5)
    assert page.state()["studio"]["recording"] == "a"
    assert page.act("stop")[1]["result"] == opened.counts()["a"]
    names = json.loads(page.ask("GET", "/studio/images?label=a")[1])
    status, jpeg = page.ask("GET", f"/studio/image?label=a&name={names[0]}")
    assert (status, jpeg[:3]) == (200, b"\xff\xd8\xff")
    assert page.ask("GET", "/studio/image?label=a&name=../sessions.jsonl")[0] == 409
    record(opened.data, [1], ["b"], frames=6)
    opened.studio.refresh()
    assert opened.teacher.wait(30)
    assert page.act("export", target="toaster", precision="fp32")[0] == 409
    status, body = page.act("export", target="jetpack4", precision="fp16")
    assert status == 200
    assert re.search(r"fp16 for TensorRT 8.2 .* on (\d+) of \1 images", body["result"]["text"])
    assert page.ask("GET", f"/studio/model?name={body['result']['name']}")[0] == 200
    assert page.ask("GET", "/studio/model?name=../../data/sessions.jsonl")[0] == 409
    archive = zipfile.ZipFile(io.BytesIO(page.ask("GET", f"/studio/kit.zip?name={body['result']['name']}")[1]))
    assert archive.namelist() == ["model.onnx", "run.py"]


def test_the_loop_takes_each_newer_head(opened):
    record(opened.data, [0], LABELS[:2], frames=6)
    opened.studio.refresh()
    assert opened.teacher.wait(30)
    labels = []

    class Sink:
        def __call__(self, result) -> bool:
            if not labels or labels[-1] != result.labels:
                labels.append(result.labels)
            if len(labels) == 1:
                record(opened.data, [0], LABELS[2:], frames=6)
                opened.studio.refresh()
                time.sleep(0.05)
            return len(labels) < 3 and labels[-1] != LABELS

        def close(self) -> None: ...

    loop(opened.camera, opened.teacher.model, [Sink()], watcher=opened.studio)
    assert labels[0] == LABELS[:2]
    assert labels[-1] == LABELS


def test_a_file_is_no_camera_for_it(tmp_path):
    assert_one_line_error(call("live/studio.py", "--camera", "clip.mp4", cwd=tmp_path), "needs a live camera")


class Served:
    """`live/studio.py` on a synthetic room, and a browser's page of it."""

    def __init__(self, folder: Path, seed: int):
        command = [sys.executable, str(ROOT / "live/studio.py"), "--camera", f"synthetic?seed={seed}", "--http", "0"]
        self._process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.url = re.search(r"http://\S+", self._process.stderr.readline())[0]

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)


def open_page(page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#teach:not([hidden])")
    page.evaluate(
        "() => { window.newest = null; const source = new EventSource('events');"
        "source.onmessage = event => { window.newest = JSON.parse(event.data); }; }"
    )


def wait_for_label(page, label: str) -> None:
    """Wait until the synthetic camera begins to show a label."""
    per_label = round(30 * SECONDS_PER_LABEL)

    def begins() -> bool:
        newest = page.evaluate("window.newest") or {}
        number = newest.get("frame")
        return number is not None and label_at(number) == label and 4 < number % per_label < 12

    wait_until(begins, 90)


def hold_each(page, labels: list[str]) -> None:
    """Record each label while the camera shows it: by mouse and by key in turn."""
    for index, label in enumerate(labels):
        wait_for_label(page, label)
        if index % 2:
            page.keyboard.down(str(index + 1))
            time.sleep(1.0)
            page.keyboard.up(str(index + 1))
        else:
            page.locator(".hold").nth(index).hover()
            page.mouse.down()
            time.sleep(1.0)
            page.mouse.up()
        see(page, "#done", "recorded")


@pytest.mark.slow
@pytest.mark.browser
def test_from_an_empty_folder_to_right_answers_in_a_new_room(tmp_path):
    """By clicking and keys only; then the model that is taken along does the same."""
    playwright = pytest.importorskip("playwright.sync_api")
    faults, labels = [], sorted(("none", *LABELS))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        for seed in (1, 2, 3, 4):
            served = Served(tmp_path, seed)
            open_page(page, served.url)
            if seed == 1:
                page.keyboard.press("n")
                for label in labels:
                    page.keyboard.type(label)
                    page.keyboard.press("Enter")
                    page.wait_for_selector(f'.card[data-label="{label}"]')
            page.fill("#place-name", f"room {seed}")
            page.keyboard.press("Enter")
            wait_until(lambda: page.evaluate("document.activeElement === document.body"))
            hold_each(page, labels)
            served.close()
        served = Served(tmp_path, 101)
        open_page(page, served.url)
        wait_until(lambda: "4 places" in page.locator("#accuracy").inner_text(), 90)
        correct: dict[int, bool] = {}
        while len(correct) < 100:
            newest = page.evaluate("window.newest")
            if newest["frame"] % 45 > 12:  # smoothing has forgotten the label before
                correct[newest["frame"]] = newest["label"] == label_at(newest["frame"])
        with page.expect_download() as download:
            page.get_by_role("button", name="Model file").click()
        download.value.save_as(tmp_path / "taken.onnx")
        page.locator(".card").first.get_by_role("button", name="Images").click()
        page.locator("#pictures button").first.click()
        page.locator("#move").click()
        see(page, "#done", "moved 1 images to palm")
        page.get_by_role("button", name="Close").click()
        page.keyboard.press("u")
        see(page, "#done", "nothing to undo")
        for width in (1440, 1024, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        served.close()
        browser.close()
    assert not [fault for fault in faults if "ERR_" not in fault]  # a server that has ended refuses connections
    assert sum(correct.values()) >= 50  # a busy machine records a label late, so some images show the next one
    places = {sample.scene for sample in list_samples(tmp_path / "data")}
    assert places == {f"room {seed}" for seed in (1, 2, 3, 4)} == set(read_places(tmp_path / "data").values())
    options = ["--camera", "synthetic?seed=102", "--headless", "--json", "--max-frames", "180", "--smoothing", "0"]
    result = call("live/run.py", "--model", "taken.onnx", *options, cwd=tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum(line["label"] == label_at(line["frame"]) for line in lines) > 0.5 * len(lines)


@pytest.mark.slow
def test_a_better_model_is_trained_behind_it(tmp_path, backbone, monkeypatch):
    quick = ["--backbone", "squeezenet1_1", "--strategy", "head", "--epochs", "3"]
    start = BackgroundTraining.start
    monkeypatch.setattr(BackgroundTraining, "start", lambda self, arguments: start(self, [*arguments, *quick]))
    fixture = Fixture(tmp_path, backbone)
    try:
        record(fixture.data, range(6), LABELS, frames=4)
        fixture.studio.refresh()
        assert fixture.teacher.wait(60)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            fixture.teacher.progress = replace(fixture.teacher.progress, accuracy=0.1)
            fixture.studio.better.train()
            with pytest.raises(UserError, match="a training is running"):
                fixture.studio.better.train()
            wait_until(lambda: not fixture.studio._make_state()["training"]["running"], 300)
            wait_until(lambda: fixture.studio.better._text.startswith("the trained model is in use"), 60)
            assert fixture.studio._make_state()["model"] == "trained"
            assert fixture.studio.take().contract.labels == LABELS
            assert fixture.studio.take() is None
            assert fixture.studio.save_model().parent.parent.name == "runs"
        record(fixture.data, [9], LABELS[:1], frames=1)
        fixture.studio.refresh()
        assert fixture.studio._make_state()["model"] == "taught"  # it knows the new image, the trained one does not
        assert fixture.studio.take() is fixture.teacher.model
    finally:
        fixture.close()
