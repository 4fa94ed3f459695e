"""The studio: recording and caring for labels, its routes, and the better model behind it."""

from __future__ import annotations

import http.client
import io
import json
import os
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
from teachcam.collect.probe import CameraInfo
from teachcam.errors import CameraError, DatasetError, UserError
from teachcam.export.metadata import read_metadata
from teachcam.images import decode_image
from teachcam.live.loop import loop
from teachcam.teach import camera_choice, take_along
from teachcam.teach import recording as recording_module
from teachcam.teach.backbone import Backbone
from teachcam.teach.background_trainer import why_no_training
from teachcam.teach.label_images import LabelImages
from teachcam.teach.page import StudioPage
from teachcam.teach.session import Studio
from teachcam.teach.teacher import Teacher


class Fixture:
    """A studio with an open synthetic camera."""

    def __init__(self, folder: Path, backbone: Backbone):
        self.data = folder / "data"
        self.camera = Camera("synthetic?seed=3&size=320x240")
        self.teacher = Teacher(self.data, backbone)
        self.studio = Studio(self.camera, self.data, self.teacher, folder / "runs")

    def hold(self, label: str, images: int) -> int:
        """Record some images of a label."""
        self.studio.recording.begin(label)
        wait_until(lambda: self.counts()[label] >= images)
        return self.studio.recording.end()

    def counts(self) -> dict[str, int]:
        state = self.studio.state()
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


@pytest.mark.slow
def test_what_is_recorded_is_in_the_dataset_and_learned(opened):
    for label in ("a", "b"):
        opened.studio.labels.add(label)
    opened.studio.recording.set_place("kitchen")
    counts = {label: opened.hold(label, 5) for label in ("a", "b")}
    assert opened.counts() == counts
    samples = list_samples(opened.data)
    assert len(samples) == sum(counts.values())
    assert {sample.scene for sample in samples} == {"kitchen"}
    assert opened.teacher.wait(PATIENCE)
    state = opened.studio.state()
    assert state["ready"]
    assert state["places"] == ["kitchen"]
    assert "a, b were recorded in one place only" in state["accuracy"]
    assert opened.studio.labels.undo() == f"undone: the recording of {counts['b']} images of b"
    assert opened.counts() == {"a": counts["a"], "b": 0}
    assert opened.teacher.wait(PATIENCE)
    assert not opened.studio.state()["ready"]


def test_the_recording_of_a_page_ends_with_its_connection_and_others_wait(opened, monkeypatch):
    monkeypatch.setattr(recording_module, "TIMEOUT", float("inf"))
    studio = opened.studio
    studio.labels.add("a")
    with pytest.raises(DatasetError, match="this page has no connection"):
        studio.recording.begin("a", "one")
    for page in ("one", "one", "two"):  # a page that connects again may do so before its old connection ends
        studio.recording.page_opened(page)
    studio.recording.begin("a", "one")
    with pytest.raises(DatasetError, match="another page is recording a"):
        studio.recording.begin("a", "two")
    studio.recording.page_closed("two")
    assert studio.state()["recording_page"] == "one"
    assert studio.state()["recording"] == "a"
    studio.recording.page_closed("one")
    assert studio.state()["recording"] is None
    studio.recording.begin("a", "one")
    studio.recording.page_closed("one")
    with pytest.raises(DatasetError, match="this page has no connection"):
        studio.recording.begin("a", "one")
    assert opened.counts()["a"] == len([*(opened.data / "a").iterdir()])


def test_labels_and_images_can_be_moved_and_nothing_is_deleted(opened):
    record(opened.data, [0], LABELS, frames=3)
    opened.studio.labels.refresh()
    newest = opened.studio.labels.images("palm")[0]
    assert newest > opened.studio.labels.images("palm")[1]
    assert opened.studio.labels.move("palm", [newest], "thumbs_up") == "moved 1 image to thumbs_up"
    assert opened.studio.labels.move("thumbs_up", [newest], None) == "took 1 image out of thumbs_up"
    assert (opened.data / REJECTED / "thumbs_up" / newest).is_file()
    opened.studio.labels.rename("palm", "hand")
    assert opened.studio.labels.remove("thumbs_up") == 3
    assert opened.counts() == {"hand": 2, "thumbs_down": 3}
    assert len(list((opened.data / REJECTED / "thumbs_up").iterdir())) == 4
    for action, arguments in (
        (opened.studio.labels.rename, ("hand", "thumbs_down")),
        (opened.studio.labels.rename, ("hand", "a/b")),
        (opened.studio.labels.add, ("hand",)),
        (opened.studio.recording.begin, ("palm",)),
        (opened.studio.labels.images, ("../..",)),
        (opened.studio.labels.path, ("hand", "../sessions.jsonl")),
        (opened.studio.labels.move, ("hand", opened.studio.labels.images("hand"), "palm")),
        (opened.studio.labels.move, ("hand", opened.studio.labels.images("hand"), "hand")),
        (opened.studio.labels.move, ("hand", ["../sessions.jsonl"], None)),
        (opened.studio.labels.move, ("hand", [], None)),
        (opened.studio.labels.restore, ("..", ["sessions.jsonl"])),
        (opened.studio.labels.restore, ("thumbs_up", ["../../sessions.jsonl"])),
        (opened.studio.labels.rejected_path, ("../hand", opened.studio.labels.images("hand")[0])),
        (opened.studio.labels.order, ("hand", "palm")),
        (opened.studio.recording.set_place, ("  ",)),
    ):
        with pytest.raises(DatasetError):
            action(*arguments)
    assert opened.counts() == {"hand": 2, "thumbs_down": 3}


def test_undo_takes_the_last_change_back_whatever_it_was(opened):
    studio = opened.studio
    for label in ("b", "a"):
        studio.labels.add(label)
    count = opened.hold("a", 3)
    newest = studio.labels.images("a")
    studio.labels.move("a", newest[:1], None)
    assert studio.labels.undo() == "undone: 1 image taken out of a"
    assert studio.labels.images("a") == newest
    studio.labels.move("a", newest[:2], "b")
    studio.labels.rename("a", "c")
    studio.labels.remove("c")
    assert opened.counts() == {"b": 2}
    assert studio.state()["undo"] == f"the removal of the label c with {count - 2} image{'s' * (count != 3)}"
    assert [studio.labels.undo().split(" of ")[0] for _ in range(4)] == [
        "undone: the removal", "undone: the new name c (before: a)", "undone: 2 images moved from a to b",
        "undone: the recording",
    ]  # fmt: skip
    assert opened.counts() == {"b": 0, "a": 0}
    state = studio.state()
    assert (state["undo"], state["redo"]) == ("the new label a", f"the recording of {count} images of a")
    assert state["rejected"] == count
    assert studio.labels.redo() == f"redone: the recording of {count} images of a"
    assert studio.labels.images("a") == newest
    assert studio.state()["rejected"] == 0
    assert [studio.labels.undo() for _ in range(4)][1:] == [
        "undone: the new label a", "undone: the new label b", "nothing to undo",
    ]  # fmt: skip
    assert opened.counts() == {}


def test_what_was_done_before_a_restart_can_be_undone(opened):
    record(opened.data, [0], LABELS[:1], frames=3)
    opened.studio.labels.refresh()
    opened.studio.labels.move("palm", opened.studio.labels.images("palm")[:2], None)
    again = LabelImages(opened.data)
    assert again.history.undo() == "undone: 2 images taken out of palm"
    again.refresh()
    assert len(again.images("palm")) == 3


def test_labels_are_in_the_order_of_creation_which_can_be_changed(opened):
    studio = opened.studio
    for label in ("up", "down", "none"):
        studio.labels.add(label)

    def labels() -> list[tuple[str, int]]:
        return [(label["name"], label["color"]) for label in studio.state()["labels"]]

    assert labels() == [("up", 0), ("down", 1), ("none", 2)]
    studio.labels.rename("up", "zoom")
    studio.labels.order("none", "down")
    assert labels() == [("zoom", 0), ("none", 2), ("down", 1)]
    studio.labels.remove("zoom")
    studio.labels.add("a")
    record(opened.data, [0], LABELS[:1], frames=1)  # by another program
    studio.labels.refresh()
    assert labels() == [("none", 2), ("down", 1), ("a", 0), ("palm", 3)]
    for text in ("the new label a", "the removal of the label zoom", "the new place of none among the labels"):
        assert studio.labels.undo() == f"undone: {text}"
    assert studio.labels.undo() == "undone: the new name zoom (before: up)"
    assert labels() == [("up", 0), ("down", 1), ("none", 2), ("palm", 3)]
    again = LabelImages(opened.data)
    assert again.colors == dict(labels())
    assert list(again.files) == ["up", "down", "none", "palm"]


def test_what_was_taken_out_can_be_restored_also_without_its_label(opened):
    record(opened.data, [0], LABELS[:2], frames=3)
    studio = opened.studio
    studio.labels.refresh()
    first, *others = studio.labels.images("palm")
    studio.labels.move("palm", [first], None)
    assert studio.labels.remove("palm") == 2
    rejected = studio.labels.rejected()
    assert {"label": "palm", "name": first} == rejected[-1]
    assert sorted(one["name"] for one in rejected) == sorted([first, *others])
    assert studio.labels.rejected_path("palm", first).is_file()
    assert studio.labels.restore("palm", [*others, "gone.jpg"]) == "restored 2 images to palm (1 of 3 images is gone)"
    assert studio.labels.images("palm") == others
    assert studio.labels.rejected() == [{"label": "palm", "name": first}]
    assert studio.labels.undo() == "undone: 2 images restored to palm"
    assert opened.counts() == {"thumbs_down": 3}
    assert len(studio.labels.rejected()) == 3


def test_a_name_that_is_no_text_is_not_sent_to_the_page(tmp_path):
    record(tmp_path, [0], LABELS[:1], frames=2)
    names = sorted(path.name for path in (tmp_path / "palm").iterdir())
    for folder in (tmp_path / "palm", tmp_path / REJECTED / "palm"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    labels = LabelImages(tmp_path)
    assert labels.files == {"palm": names}
    assert (labels.rejected(), labels.num_rejected) == ([], 0)
    assert labels.remove("palm") == 3  # it goes with the others
    labels.refresh()
    assert labels.files == {}


def test_while_a_label_is_recorded_it_stays(opened):
    studio = opened.studio
    for label in ("a", "b", "c"):
        studio.labels.add(label)
    studio.recording.begin("a")
    for action, arguments, words in (
        (studio.labels.rename, ("a", "d"), "a is being recorded: wait until that ends"),
        (studio.labels.remove, ("a",), "a is being recorded"),
        (studio.labels.undo, (), "let go of the button first"),
        (studio.labels.redo, (), "let go of the button first"),
        (studio.recording.set_place, ("kitchen",), "let go of the button first"),
    ):
        with pytest.raises(DatasetError, match=words):
            action(*arguments)
    studio.labels.rename("b", "d")
    studio.labels.remove("c")
    assert studio.state()["recording"] == "a"
    wait_until(lambda: opened.counts()["a"] >= 2)
    count = studio.recording.end()
    assert studio.labels.undo() == f"undone: the recording of {count} images of a"  # it ended last
    assert studio.labels.undo() == "undone: the removal of the label c"


def test_a_recording_ends_by_itself_when_its_page_is_gone(opened, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(recording_module, "time", clock)
    opened.studio.labels.add("a")
    for _ in range(2):  # the page says again and again that its key is held
        opened.studio.recording.begin("a")
        clock.now += 0.9 * recording_module.TIMEOUT
        opened.studio.look(opened.camera.read_frame())
    wait_until(lambda: opened.counts()["a"] >= 1)
    assert opened.studio.state()["recording"] == "a"
    clock.now += 0.2 * recording_module.TIMEOUT
    opened.studio.look(opened.camera.read_frame())
    wait_until(lambda: opened.studio.state()["recording"] is None)


def test_only_one_page_records_at_a_time(opened):
    for label in ("a", "b"):
        opened.studio.labels.add(label)
    opened.studio.recording.begin("a")
    with pytest.raises(DatasetError, match="another page is recording a"):
        opened.studio.recording.begin("b")
    assert opened.studio.recording.end("b") == 0
    wait_until(lambda: opened.counts()["a"] >= 2)
    assert opened.studio.recording.end("a") == opened.counts()["a"]
    assert opened.hold("b", 1) >= 1


def test_a_full_disk_is_said_and_what_was_recorded_stays(opened, monkeypatch):
    opened.studio.labels.add("a")
    saved = opened.hold("a", 2)

    tried = threading.Event()

    def full(*_):
        tried.set()
        raise OSError(28, "No space left on device", "file")

    monkeypatch.setattr("teachcam.collect.dataset.write_atomic", full)
    opened.studio.recording.begin("a")
    assert tried.wait(PATIENCE)
    with pytest.raises(DatasetError, match="No space left on device"):
        opened.studio.recording.end()
    assert opened.counts()["a"] == len(list_samples(opened.data)) == saved


def test_where_training_is_not_possible_it_says_why(opened, monkeypatch):
    assert why_no_training() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_no_training().startswith(
        "training needs torch, torchvision, timm: in the project's folder, run pip install "
    )
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    assert why_no_training().startswith("training needs Python 3.10")
    opened.studio.trainer._impossible = why_no_training()
    with pytest.raises(UserError, match=r"Python 3\.10"):
        opened.studio.trainer.train()


def decode_size(jpeg: bytes) -> tuple[int, int]:
    """Return the width and the height of an image."""
    height, width = decode_image(jpeg).shape[:2]
    return width, height


def test_the_camera_is_changed_and_mirrored_between_recordings(opened, monkeypatch):
    studio, first = opened.studio, opened.camera.source
    found = [CameraInfo("synthetic:palm", 320, 240, 30.0)]  # in place of a device of this machine
    monkeypatch.setattr(camera_choice, "find_cameras", lambda in_use: found)
    studio.look(opened.camera.read_frame())
    assert studio.camera.find() == [
        {"source": first, "text": f"{first}, 320x240"},
        {"source": "synthetic:palm", "text": "synthetic:palm, 320x240"},
        {"source": "synthetic", "text": "synthetic: drawn hands, needs no camera"},
    ]
    studio.labels.add("a")
    studio.recording.begin("a")
    for action, argument in ((studio.camera.choose, "synthetic:palm"), (studio.camera.mirror, "yes")):
        with pytest.raises(DatasetError, match="let go of the button first: a recording is going on"):
            action(argument)
    studio.recording.end()
    for source in ("synthetic?seed=4", "0", "gst:videotestsrc", "http://127.0.0.1:9/", str(opened.data)):
        with pytest.raises(UserError, match="not in the list of cameras"):
            studio.camera.choose(source)
    with pytest.raises(UserError, match='"yes" or "no"'):
        studio.camera.mirror("perhaps")
    studio.camera.choose("synthetic:palm")
    studio.camera.mirror("yes")
    studio.camera.mirror("yes")
    opened.hold("a", 2)
    assert (studio.state()["camera_source"], studio.state()["mirrored"]) == ("synthetic:palm", True)
    sessions = [json.loads(line) for line in (opened.data / "sessions.jsonl").read_text().splitlines()]
    assert (sessions[-1]["camera"], sessions[-1]["flip"]) == ("synthetic:palm", "horizontal")
    studio.camera.mirror("no")
    studio.camera.choose(first)
    assert (studio.state()["camera_source"], studio.state()["mirrored"]) == (first, False)


def test_a_mirrored_camera_that_hangs_upside_down_stays_turned(opened):
    opened.camera.switch(flip="180")
    assert not opened.studio.state()["mirrored"]
    opened.studio.camera.mirror("yes")
    assert opened.camera.flip == "vertical"  # "180" and "horizontal" in one
    opened.studio.camera.mirror("no")
    assert opened.camera.flip == "180"


def test_nothing_is_recorded_and_the_page_goes_on_while_a_camera_opens(opened, monkeypatch):
    opened.studio.labels.add("a")
    opening, go_on = threading.Event(), threading.Event()

    def fail(source):
        opening.set()
        go_on.wait()
        raise CameraError("it does not open")

    monkeypatch.setattr(opened.camera, "switch", fail)
    errors = []

    def change():
        try:
            opened.studio.camera.choose("synthetic")
        except CameraError as error:
            errors.append(str(error))

    thread = threading.Thread(target=change)
    thread.start()
    opening.wait()
    with pytest.raises(DatasetError, match="the camera is being changed: wait a moment"):
        opened.studio.recording.begin("a")
    assert opened.studio.state()["recording"] is None
    go_on.set()
    thread.join()
    assert errors == ["it does not open"]
    assert opened.hold("a", 1) >= 1


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

    def act(self, action: str, **values: object):
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
    web = StudioPage("127.0.0.1", 0, opened.camera, opened.studio)
    yield Client(web.url)
    web.close()


def never_end(*_: object) -> None:
    threading.Event().wait()


@pytest.mark.slow
def test_the_routes(page, opened, monkeypatch):
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
    assert page.act("camera", source="gst:videotestsrc")[0] == page.act("mirror", on="perhaps")[0] == 409
    assert page.act("camera", source="synthetic") == page.act("mirror", on="yes") == (200, {"result": None})
    assert json.loads(page.ask("GET", "/studio/cameras")[1])[0]["source"] == "synthetic"
    assert page.state()["studio"]["mirrored"]
    assert page.act("record", label="a")[0] == 200
    wait_until(lambda: opened.counts()["a"] >= 5)
    assert page.state()["studio"]["recording"] == "a"
    assert page.act("stop")[1]["result"] == opened.counts()["a"]
    names = json.loads(page.ask("GET", "/studio/images?label=a")[1])
    status, jpeg = page.ask("GET", f"/studio/image?label=a&name={names[0]}")
    assert (status, jpeg[:3]) == (200, b"\xff\xd8\xff")
    assert page.ask("GET", "/studio/image?label=a&name=../sessions.jsonl")[0] == 409
    large = page.ask("GET", f"/studio/image?label=a&name={names[0]}&size=large")[1]
    assert decode_size(large) == (640, 480)
    assert decode_size(jpeg) == (160, 120)
    many = [f"{number:056d}.jpg" for number in range(1999)]
    moved = page.act("move", label="a", names=[names[0], *many], to=None)
    assert moved == (200, {"result": "took 1 image out of a (1999 of 2000 images are gone)"})
    assert json.loads(page.ask("GET", "/studio/rejected")[1]) == [{"label": "a", "name": names[0]}]
    assert page.ask("GET", f"/studio/image?label=a&name={names[0]}&rejected=1") == (200, jpeg)
    assert page.ask("GET", f"/studio/image?label=a&name={names[1]}&rejected=1")[0] == 409
    assert page.act("restore", label="a", names=names[:1]) == (200, {"result": "restored 1 image to a"})
    assert page.act("undo") == (200, {"result": "undone: 1 image restored to a"})
    assert page.act("redo") == (200, {"result": "redone: 1 image restored to a"})
    assert page.act("order", label="a", before=None) == (200, {"result": None})
    for wrong in ({"label": "a", "names": "b", "to": None}, {"label": "a", "names": [3], "to": None}, {"label": None}):
        assert page.act("move" if "names" in wrong else "add", **wrong)[0] == 400
    record(opened.data, [1], ["b"], frames=6)
    opened.studio.labels.refresh()
    assert opened.teacher.wait(PATIENCE)
    assert page.act("export", target="toaster", precision="fp32")[0] == 409
    with monkeypatch.context() as patch:
        patch.setattr(take_along, "write_taught", never_end)
        status, body = page.act("export", target="desktop", precision="int8")
    assert status == 200
    assert page.act("export", target="desktop", precision="fp32") == (
        409,
        {"error": "a file is being made: wait, or cancel it"},
    )
    assert page.act("cancel_export", id=body["result"]) == (200, {"result": None})
    assert page.act("export", target="jetpack4", precision="fp16")[0] == 200
    wait_until(lambda: not page.state()["studio"]["export"]["running"])
    state = page.state()["studio"]
    name = state["export"]["name"]
    assert name == "model-jetpack4-fp16.onnx"
    assert re.fullmatch(r"the same label as here on (\d+) of \1 images", state["export"]["text"])
    assert state["export_choices"][0]["device"] == "PC, laptop or Raspberry Pi"
    assert page.ask("GET", f"/studio/model?name={name}")[0] == 200
    assert page.ask("GET", "/studio/model?name=../../data/sessions.jsonl")[0] == 409
    assert page.ask("GET", "/studio/kit.zip?name=model.onnx")[0] == 409
    archive = zipfile.ZipFile(io.BytesIO(page.ask("GET", f"/studio/kit.zip?name={name}")[1]))
    assert {"model.onnx", "run.py", "README.txt", "requirements.txt"} <= set(archive.namelist())


@pytest.mark.slow
def test_the_loop_takes_each_newer_head(opened):
    record(opened.data, [0], LABELS[:2], frames=6)
    opened.studio.labels.refresh()
    assert opened.teacher.wait(PATIENCE)
    labels = []

    class Sink:
        def __call__(self, result) -> bool:
            if not labels or labels[-1] != result.labels:
                labels.append(result.labels)
                if len(labels) == 1:
                    record(opened.data, [0], LABELS[2:], frames=6)
                    opened.studio.labels.refresh()
            return len(labels) < 3 and labels[-1] != LABELS

        def close(self) -> None: ...

    loop(opened.camera, opened.teacher.model, [Sink()], watcher=opened.studio, max_frames=int(60 * PATIENCE))
    assert labels[0] == LABELS[:2]
    assert labels[-1] == LABELS


def test_a_file_is_no_camera_for_it(tmp_path):
    assert_one_line_error(call("teach/studio.py", "--camera", "clip.mp4", cwd=tmp_path), "needs a live camera")


@pytest.mark.slow
def test_a_better_model_is_trained_behind_it(tmp_path, backbone, monkeypatch):
    quick = ["--backbone", "squeezenet1_1", "--strategy", "head", "--epochs", "3"]
    start = BackgroundTraining.start
    monkeypatch.setattr(BackgroundTraining, "start", lambda self, arguments: start(self, [*arguments, *quick]))
    fixture = Fixture(tmp_path, backbone)
    try:
        record(fixture.data, range(6), LABELS, frames=4)
        fixture.studio.labels.refresh()
        assert fixture.teacher.wait(PATIENCE)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            fixture.teacher.progress = replace(fixture.teacher.progress, accuracy=0.1)
            fixture.studio.trainer.train()
            with pytest.raises(UserError, match="a training is running"):
                fixture.studio.trainer.train()
            wait_until(lambda: not fixture.studio.state()["training"]["running"])
            wait_until(lambda: fixture.studio.trainer._text.startswith("the new model is in use"))
            assert fixture.studio.state()["model"] == "trained"
            assert fixture.studio.take().contract.labels == LABELS
            assert fixture.studio.take() is None
            taken = fixture.studio.take_along
            taken.start("jetpack5", "fp16")
            wait_until(lambda: not taken.state()["running"])
            assert read_metadata(taken.path(taken.state()["name"]))[0].labels == LABELS
        record(fixture.data, [9], LABELS[:1], frames=1)
        fixture.studio.labels.refresh()
        assert fixture.studio.state()["model"] == "taught"  # it knows the new image, the trained one does not
        assert fixture.studio.take() is fixture.teacher.model
    finally:
        fixture.close()
