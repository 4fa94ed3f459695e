"""The studio: recording and caring for labels, its routes, and the better model behind it."""

from __future__ import annotations

import http.client
import io
import json
import re
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import LABELS, PATIENCE, Clock, assert_one_line_error, call, record, wait_until

from teachcam.background_training import BackgroundTraining
from teachcam.collect.camera import Camera
from teachcam.collect.dataset import REJECTED, list_samples
from teachcam.errors import DatasetError, UserError
from teachcam.export.metadata import read_metadata
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
        self.camera = Camera("synthetic?seed=3&size=320x240")
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
    assert opened.teacher.wait(PATIENCE)
    state = opened.studio._make_state()
    assert state["ready"]
    assert state["places"] == ["kitchen"]
    assert "optimistic: a, b were recorded in one place only" in state["accuracy"]
    assert opened.studio.undo() == counts["b"]
    assert opened.counts() == {"a": counts["a"], "b": 0}
    assert opened.teacher.wait(PATIENCE)
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
    clock = Clock()
    monkeypatch.setattr(studio_module, "time", clock)
    opened.studio.add_label("a")
    for _ in range(2):  # the page says again and again that its key is held
        opened.studio.record("a")
        clock.now += 0.9 * studio_module.RECORD_TIMEOUT
        opened.studio.look(opened.camera.read_frame())
    wait_until(lambda: opened.counts()["a"] >= 1)
    assert opened.studio._make_state()["recording"] == "a"
    clock.now += 0.2 * studio_module.RECORD_TIMEOUT
    opened.studio.look(opened.camera.read_frame())
    wait_until(lambda: opened.studio._make_state()["recording"] is None)


def test_only_one_page_records_at_a_time(opened):
    for label in ("a", "b"):
        opened.studio.add_label(label)
    opened.studio.record("a")
    with pytest.raises(DatasetError, match="another page is recording a"):
        opened.studio.record("b")
    assert opened.studio.stop("b") == 0
    wait_until(lambda: opened.counts()["a"] >= 2)
    assert opened.studio.stop("a") == opened.counts()["a"]
    assert opened.hold("b", 1) >= 1


def test_a_full_disk_is_said_and_what_was_recorded_stays(opened, monkeypatch):
    opened.studio.add_label("a")
    saved = opened.hold("a", 2)

    tried = threading.Event()

    def full(*_):
        tried.set()
        raise OSError(28, "No space left on device", "file")

    monkeypatch.setattr("teachcam.collect.dataset.write_atomic", full)
    opened.studio.record("a")
    assert tried.wait(PATIENCE)
    with pytest.raises(DatasetError, match="No space left on device"):
        opened.studio.stop()
    assert opened.counts()["a"] == len(list_samples(opened.data)) == saved


def test_where_training_is_not_possible_it_says_why(opened, monkeypatch):
    assert why_no_training() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_no_training().startswith(
        "training needs torch, torchvision, timm: in the project's folder, run pip install "
    )
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
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
    assert opened.teacher.wait(PATIENCE)
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
    assert opened.teacher.wait(PATIENCE)
    labels = []

    class Sink:
        def __call__(self, result) -> bool:
            if not labels or labels[-1] != result.labels:
                labels.append(result.labels)
                if len(labels) == 1:
                    record(opened.data, [0], LABELS[2:], frames=6)
                    opened.studio.refresh()
            return len(labels) < 3 and labels[-1] != LABELS

        def close(self) -> None: ...

    loop(opened.camera, opened.teacher.model, [Sink()], watcher=opened.studio, max_frames=int(60 * PATIENCE))
    assert labels[0] == LABELS[:2]
    assert labels[-1] == LABELS


def test_a_file_is_no_camera_for_it(tmp_path):
    assert_one_line_error(call("live/studio.py", "--camera", "clip.mp4", cwd=tmp_path), "needs a live camera")


@pytest.mark.slow
def test_a_better_model_is_trained_behind_it(tmp_path, backbone, monkeypatch):
    quick = ["--backbone", "squeezenet1_1", "--strategy", "head", "--epochs", "3"]
    start = BackgroundTraining.start
    monkeypatch.setattr(BackgroundTraining, "start", lambda self, arguments: start(self, [*arguments, *quick]))
    fixture = Fixture(tmp_path, backbone)
    try:
        record(fixture.data, range(6), LABELS, frames=4)
        fixture.studio.refresh()
        assert fixture.teacher.wait(PATIENCE)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            fixture.teacher.progress = replace(fixture.teacher.progress, accuracy=0.1)
            fixture.studio.better.train()
            with pytest.raises(UserError, match="a training is running"):
                fixture.studio.better.train()
            wait_until(lambda: not fixture.studio._make_state()["training"]["running"])
            wait_until(lambda: fixture.studio.better._text.startswith("the trained model is in use"))
            assert fixture.studio._make_state()["model"] == "trained"
            assert fixture.studio.take().contract.labels == LABELS
            assert fixture.studio.take() is None
            exported = fixture.studio.export("jetpack5", "fp16")
            assert "fp16 for TensorRT 8.5" in exported["text"]
            assert read_metadata(fixture.studio.exported_path(exported["name"]))[0].labels == LABELS
        record(fixture.data, [9], LABELS[:1], frames=1)
        fixture.studio.refresh()
        assert fixture.studio._make_state()["model"] == "taught"  # it knows the new image, the trained one does not
        assert fixture.studio.take() is fixture.teacher.model
    finally:
        fixture.close()
