"""Take along: a model file is written in the background, reported, canceled, and refused in plain words."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import LABELS, PATIENCE, record, wait_until

from teachcam.errors import ExportError, UserError
from teachcam.export.metadata import read_metadata
from teachcam.export.targets import TARGETS
from teachcam.live.classifier import Classifier
from teachcam.teach import take_along as take_along_module
from teachcam.teach.backbone import Backbone
from teachcam.teach.export_process import ExportProcess
from teachcam.teach.take_along import TakeAlong
from teachcam.teach.teacher import Teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    teacher = Teacher(record(folder / "data", range(4), LABELS[:2], frames=6), Backbone(folder / "backbone", "cpu"))
    assert teacher.wait(PATIENCE)
    yield teacher
    teacher.close()


@pytest.fixture
def take_along(teacher, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    made = TakeAlong(teacher, SimpleNamespace(model=None), tmp_path / "runs")
    yield made
    made.close()


def finish(take_along: TakeAlong) -> dict:
    wait_until(lambda: not take_along.state()["running"])
    return take_along.state()


def size_offered(take_along: TakeAlong, target: str, precision: str) -> float:
    """Return the megabytes that the page says before."""
    (choice,) = (choice for choice in take_along.choices() if choice["target"] == target)
    return float(next(each["size"] for each in choice["precisions"] if each["name"] == precision).split()[0])


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_it_writes_what_was_chosen_and_says_how_far_it_is(take_along, teacher, tmp_path, monkeypatch):
    told = []
    change = take_along._change
    monkeypatch.setattr(take_along, "_change", lambda **changes: (told.append(changes), change(**changes)))
    export = take_along.start("jetpack4", "fp16")
    assert take_along.state()["id"] == export
    assert take_along.state()["running"]
    with pytest.raises(UserError, match="a file is being made: wait, or cancel it"):
        take_along.start("desktop", "fp32")
    state = finish(take_along)
    assert (state["id"], state["error"], state["name"]) == (export, "", "model-jetpack4-fp16.onnx")
    assert state["choice"] == {"target": "jetpack4", "precision": "fp16"}
    assert state["text"] == "the same label as here on 48 of 48 images"
    texts = [(step["text"], step["fraction"]) for step in told[:-1]]
    assert ("looking at the images: 12 of 48 images", 0.25) in texts
    assert ("comparing the file with the model: 48 of 48 images", 1.0) in texts
    path = take_along.path(state["name"])
    assert state["size_mb"] == round(path.stat().st_size / 1e6, 1)
    assert size_offered(take_along, "jetpack4", "fp16") == pytest.approx(state["size_mb"], rel=0.1)
    assert read_metadata(path)[1]["target"] == "jetpack4"
    assert left_behind(tmp_path) == [path]
    Classifier(path, "cpu").self_check()


@pytest.mark.slow
def test_canceled_in_the_middle_it_leaves_nothing_and_the_next_one_succeeds(take_along, tmp_path, monkeypatch):
    step, change = "", take_along._change

    def change_and_stay(**changes) -> None:
        """Stay at the step until it is canceled. Its process goes on, and may be ready by then."""
        change(**changes)
        if step and str(changes.get("text")).startswith(step):
            wait_until(lambda: take_along._process.is_killed)

    monkeypatch.setattr(take_along, "_change", change_and_stay)
    for precision, step in (("int8", ""), ("int8", "measuring the range of "), ("fp32", "comparing the file")):
        export = take_along.start("desktop", precision)
        take_along.cancel("another")
        wait_until(lambda step=step: str(take_along.state()["text"]).startswith(step))
        take_along.cancel(export)
        state = take_along.state()
        assert (state["running"], state["text"], state["error"], state["name"]) == (False, "canceled", "", "")
        assert left_behind(tmp_path) == []
        with pytest.raises(UserError, match="there is no file"):
            take_along.path("model-desktop-int8.onnx")
    step = ""
    assert take_along.start("desktop", "int8") != export
    take_along.cancel(export)  # which has ended already
    state = finish(take_along)
    assert state["name"] == "model-desktop-int8.onnx"
    assert size_offered(take_along, "desktop", "int8") == pytest.approx(state["size_mb"], rel=0.1)


@pytest.mark.slow
def test_closing_ends_it(take_along, tmp_path):
    take_along.start("desktop", "int8")
    take_along.close()
    assert not take_along.state()["running"]
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_what_the_page_offers_is_what_it_takes(take_along):
    choices = {choice["target"]: choice for choice in take_along.choices()}
    assert set(choices) == set(TARGETS)
    assert choices["desktop"]["device"] == "PC, laptop or Raspberry Pi"
    offered = {target: [each["name"] for each in choice["precisions"]] for target, choice in choices.items()}
    assert offered == {"desktop": ["fp32", "int8"], **{f"jetpack{n}": ["fp32", "fp16"] for n in (4, 5, 6, 7)}}
    for target, precision in (("jetpack6", "int8"), ("toaster", "fp32"), ("desktop", "fp64")):
        with pytest.raises(UserError, match="choose one that the page offers"):
            take_along.start(target, precision)


def refuse(source: object, out: Path, *_: object) -> None:
    out.write_bytes(b"half a file")
    raise ExportError("int8 loses 3.0 points of accuracy", "export fp16, or give --allow-accuracy-drop")


def fail(*_: object) -> None:
    raise RuntimeError("the third wheel\nis missing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("export", "error"),
    [
        (refuse, "int8 loses 3.0 points of accuracy: choose exact (fp32), or record more images"),
        (fail, "the export failed: RuntimeError: the third wheel"),
    ],
)
def test_an_error_is_a_sentence_for_the_page_and_no_file_is_written(take_along, tmp_path, monkeypatch, export, error):
    monkeypatch.setattr(take_along_module, "write_taught", export)
    take_along.start("desktop", "int8")
    state = finish(take_along)
    assert (state["error"], state["name"], state["text"]) == (error, "", "")
    assert left_behind(tmp_path) == []


def test_a_command_is_told_the_option(tmp_path):
    with pytest.raises(ExportError, match="accuracy: export fp16, or give --allow-accuracy-drop"):
        ExportProcess(refuse, None, tmp_path / "model.onnx", None).wait()


@pytest.mark.slow
def test_too_few_images_for_int8_are_said_without_an_option(tmp_path):
    folder = tmp_path / "few"
    teacher = Teacher(record(folder / "data", [0], LABELS[:2], frames=6), Backbone(folder / "backbone", "cpu"))
    try:
        take_along = TakeAlong(teacher, SimpleNamespace(model=None), tmp_path / "runs")
        assert teacher.wait(PATIENCE)
        take_along.start("desktop", "int8")
        error = finish(take_along)["error"]
    finally:
        teacher.close()
    assert error.startswith("int8 needs at least 20 images to calibrate on, there are 6: ")
    assert "--" not in error


def test_without_a_model_it_says_what_is_missing(tmp_path):
    teacher = Teacher(tmp_path / "data", Backbone(tmp_path / "backbone", "cpu"))
    try:
        with pytest.raises(UserError, match="nothing to take along yet: record two labels, five images each"):
            TakeAlong(teacher, SimpleNamespace(model=None), tmp_path / "runs").start("desktop", "fp32")
    finally:
        teacher.close()


@pytest.mark.slow
def test_a_trained_model_is_taken_along_as_it_is(teacher, run_copy, tmp_path):
    better = SimpleNamespace(model=Classifier(run_copy / "model.onnx", "cpu"))
    take_along = TakeAlong(teacher, better, tmp_path / "out")
    size = size_offered(take_along, "jetpack5", "fp16")
    take_along.start("jetpack5", "fp16")
    state = finish(take_along)
    assert not state["error"]
    assert read_metadata(take_along.path(state["name"]))[0].labels == LABELS
    assert size == pytest.approx(state["size_mb"], rel=0.1)
