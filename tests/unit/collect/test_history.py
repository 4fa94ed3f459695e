"""The history of a dataset: every change is undone and redone, also after a crash, and no image is ever lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from teachcam.collect import changes
from teachcam.collect.changes import Change, Step
from teachcam.collect.dataset import new_session_id
from teachcam.collect.history import HISTORY_FILE, LOCK_FILE, MAX_CHANGES, History
from teachcam.collect.label_order import LabelEntry, complete_order, read_order
from teachcam.errors import DatasetError

A_TO_B = [Step("move", f"a/{number}.jpg", f"b/{number}.jpg") for number in range(3)]
A_OUT = [Step("move", f"a/{number}.jpg", f".rejected/a/{number}.jpg") for number in range(3)]


@pytest.fixture
def data(tmp_path) -> Path:
    """Two labels of three images each, whose content says where they were."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number + 10 * (label == 'b')}.jpg").write_text(f"{label} {number}")
    return tmp_path


def files(data: Path) -> dict[str, str]:
    """Return the content of each image, by its path."""
    return {path.relative_to(data).as_posix(): path.read_text() for path in sorted(data.rglob("*.jpg"))}


def folders(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir() if path.is_dir() and path.name != ".rejected")


def save(data: Path, label: str, session: str, number: int) -> None:
    (data / label / f"{session}_{number:04d}.jpg").write_text(f"{session} {number}")


def record(history: History, data: Path, label: str, images: int) -> str:
    session = new_session_id()
    history.begin_recording(session, label)
    for number in range(images):
        save(data, label, session, number)
    history.end_recording()
    return session


def change_everything(history: History, data: Path) -> list[str]:
    """Make one change of each kind. Returns the text of each."""
    up, down = [LabelEntry("a", 0), LabelEntry("b", 1)], [LabelEntry("b", 1), LabelEntry("a", 0)]
    changes = {
        "the new label c": [Step("folder", None, "c")],
        "3 images moved from a to c": [Step("move", f"a/{number}.jpg", f"c/{number}.jpg") for number in range(3)],
        "the new name up (before: c)": [Step("move", "c", "up")],
        "1 image taken out of up": [Step("move", "up/1.jpg", ".rejected/up/1.jpg")],
        "1 image restored to up": [Step("move", ".rejected/up/1.jpg", "up/1.jpg")],
        "the new place of a": [Step("order", up, down)],
        "the removal of the label up": [
            *(Step("move", f"up/{number}.jpg", f".rejected/up/{number}.jpg") for number in range(3)),
            Step("folder", "up", None),
        ],
    }
    record(history, data, "b", 10)
    for text, steps in changes.items():
        history.apply(text, steps)
    record(history, data, "a", 1)
    return ["the recording of 10 images of b", *changes, "the recording of 1 image of a"]


def test_every_kind_of_change_is_undone_and_redone_in_order(data):
    history, states = History(data), []
    before = files(data), folders(data)
    texts = change_everything(history, data)
    for text in reversed(texts):
        states.append((files(data), folders(data)))
        assert history.undo_text == text
        assert history.undo() == f"undone: {text}"
        assert history.redo_text == text
    assert history.undo() == history.undo_text == ""
    now = {path: content for path, content in files(data).items() if not path.startswith(".rejected")}
    assert (now, folders(data)) == before
    for text in texts:
        assert history.redo() == f"redone: {text}"
        assert (files(data), folders(data)) == states.pop()
    assert history.redo() == history.redo_text == ""


def test_it_survives_a_restart(data):
    texts = change_everything(History(data), data)
    for text in reversed(texts[4:]):
        assert History(data).undo() == f"undone: {text}"
    for text in texts[4:]:
        history = History(data)
        assert history.redo() == f"redone: {text}"
        assert history.undo_text == text
    assert History(data).redo_text == ""


def test_a_new_change_forgets_what_was_undone_and_an_empty_recording_is_none(data):
    history = History(data)
    history.apply("moved", A_TO_B)
    history.undo()
    record(history, data, "a", 0)
    assert history.redo_text == "moved"
    assert History(data).redo_text == "moved"
    history.apply("taken out", A_OUT)
    assert history.redo_text == ""
    assert History(data).undo_text == "taken out"


def test_the_order_of_labels_is_put_back(data):
    history = History(data)
    old, new = [LabelEntry("a", 0), LabelEntry("b", 1)], [LabelEntry("b", 1), LabelEntry("a", 0)]
    history.apply("order", [Step("order", old, new)])
    assert read_order(data) == new
    assert History(data).undo() == "undone: order"
    assert read_order(data) == old


def test_no_image_is_overwritten(data):
    history = History(data)
    (data / "b/1.jpg").write_text("other")
    history.apply("moved", A_TO_B)
    assert sorted(files(data).values()) == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2", "other"]
    assert files(data)["b/1.jpg"] == "other"
    (data / "a/2.jpg").write_text("newer")  # another program uses the name that is to come back
    assert history.undo() == "undone: moved"
    assert {"a 0", "a 1", "a 2", "newer"} == {text for path, text in files(data).items() if path.startswith("a/")}
    assert files(data)["a/2.jpg"] == "newer"
    assert history.redo() == "redone: moved"
    assert files(data)["a/2.jpg"] == "newer"
    assert len(files(data)) == 8


def test_an_image_that_gets_another_name_keeps_its_session(data):
    session = record(History(data), data, "a", 1)
    (data / ".rejected/a").mkdir(parents=True)
    (data / f".rejected/a/{session}_0000.jpg").write_text("other")
    assert History(data).undo() == "undone: the recording of 1 image of a"
    names = [path.stem for path in (data / ".rejected/a").iterdir()]
    assert len(names) == 2
    assert all(name.rpartition("_")[0] == session and name.rpartition("_")[2].isdecimal() for name in names)


def test_images_that_are_gone_are_counted(data):
    history = History(data)
    session = record(history, data, "a", 10)
    history.apply("3 images moved from a to b", A_TO_B)
    (data / "b/0.jpg").unlink()
    assert history.undo() == "undone: 3 images moved from a to b (1 of 3 images is gone)"
    for number in range(3):
        (data / f"a/{session}_{number:04d}.jpg").unlink()
    assert history.undo() == "undone: the recording of 10 images of a (3 of 10 images are gone)"
    for path in (data / ".rejected/a").iterdir():
        path.unlink()
    assert history.redo() == "redone: the recording of 10 images of a (10 of 10 images are gone)"
    assert len(files(data)) == 5


def test_what_another_program_made_stays(data):
    history = History(data)
    history.apply("the new label c", [Step("folder", None, "c")])
    (data / "c/0.jpg").write_text("other")
    assert history.undo() == "undone: the new label c (c stays: there are other files in its folder)"
    assert files(data)["c/0.jpg"] == "other"
    history.apply("the new name up", [Step("move", "a", "up")])
    (data / "a").mkdir()
    assert history.undo() == "undone: the new name up (up stays: there is a a already)"
    assert len(files(data)) == 7


def test_a_folder_can_be_renamed_where_two_names_are_one_file(data, monkeypatch):
    """As `a` and `A` on a Mac, which is imitated."""

    def exists(path: Path) -> bool:
        return path.name.lower() in (other.name.lower() for other in path.parent.iterdir())

    monkeypatch.setattr(Path, "exists", exists)
    monkeypatch.setattr(Path, "samefile", lambda path, other: str(path).lower() == str(other).lower())
    history = History(data)
    history.apply("the new name A (before: a)", [Step("move", "a", "A")])
    assert folders(data) == ["A", "b"]
    assert history.undo() == "undone: the new name A (before: a)"
    assert folders(data) == ["a", "b"]


def test_a_step_that_is_not_possible_leaves_all_as_it_was(data, monkeypatch):
    history, before = History(data), files(data)
    rename = Path.rename

    def no_room(source: Path, target: Path) -> None:
        if source.name == "2.jpg":
            raise OSError(28, "No space left on device", str(target))
        rename(source, target)

    monkeypatch.setattr(Path, "rename", no_room)
    with pytest.raises(DatasetError, match="No space left on device"):
        history.apply("moved", A_TO_B)
    assert files(data) == before
    assert history.undo_text == history.redo_text == ""
    monkeypatch.undo()
    history.apply("moved", A_TO_B)
    monkeypatch.setattr(Path, "rename", no_room)
    with pytest.raises(DatasetError):
        history.undo()
    monkeypatch.undo()
    assert History(data).undo_text == history.undo_text == "moved"
    assert History(data).undo() == "undone: moved"
    assert files(data) == before


class Crash(BaseException):
    """Ends a program between two steps."""


@pytest.mark.parametrize("what", ["apply", "undo", "redo"])
@pytest.mark.parametrize("number", range(4))
def test_after_a_crash_at_any_step_the_change_is_finished(data, monkeypatch, what, number):
    history, before = History(data), files(data)
    run_step, done = changes._run_step, []

    def crash(*arguments) -> bool:
        if len(done) == number:
            raise Crash
        done.append(arguments)
        return run_step(*arguments)

    if what != "apply":
        history.apply("moved", A_TO_B)
    if what == "redo":
        history.undo()
    monkeypatch.setattr(changes, "_run_step", crash)
    monkeypatch.setattr(History, "_write_if_possible", crash)
    with pytest.raises(Crash):
        history.apply("moved", A_TO_B) if what == "apply" else getattr(history, what)()
    assert sorted(files(data).values()) == sorted(before.values())
    monkeypatch.undo()
    history = History(data)
    assert history.undo_text == ("" if what == "undo" else "moved")
    assert history.undo() == ("" if what == "undo" else "undone: moved")
    assert files(data) == before
    assert history.redo() == "redone: moved"
    assert len(files(data)) == 6
    assert all(path.startswith("b/") for path in files(data))


def test_a_crash_while_recording_leaves_a_recording_that_can_be_undone(data):
    session = new_session_id()
    History(data).begin_recording(session, "a")
    for number in range(4):
        save(data, "a", session, number)
    History(data).begin_recording(new_session_id(), "b")  # without an image
    history = History(data)
    assert history.undo() == "undone: the recording of 4 images of a"
    assert history.undo() == ""
    assert len(list((data / ".rejected/a").iterdir())) == 4


PROGRAM = """
import sys
from pathlib import Path
from teachcam.collect.changes import Step
from teachcam.collect.history import History
data = Path(sys.argv[1])
history = History(data)
there = [Step("move", f"a/{number}.jpg", f"b/{number}.jpg") for number in range(300)]
print(flush=True)
while True:
    history.apply("moved", there)
    history.undo()
    history.redo()
    history.undo()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_no_image_is_lost_if_the_program_is_killed(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    for number in range(300):
        (tmp_path / f"a/{number}.jpg").write_text(str(number))
    for _ in range(4):
        program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        program.stdout.readline()
        for _ in range(3):  # in the middle of something, wherever that is
            list(tmp_path.rglob("*"))
        program.kill()
        program.communicate(timeout=20)
        history = History(tmp_path)
        assert sorted(map(int, files(tmp_path).values())) == list(range(300))
        assert {path.split("/")[0] for path in files(tmp_path)} in ({"a"}, {"b"})
        if history.undo_text:
            assert history.undo() == "undone: moved"
        assert {path.split("/")[0] for path in files(tmp_path)} == {"a"}


def test_two_programs_share_one_history(data):
    one, two = History(data), History(data)
    one.apply("moved", A_TO_B)
    two.apply("the new label c", [Step("folder", None, "c")])
    assert one.undo() == "undone: the new label c"
    assert two.undo() == "undone: moved"
    assert one.redo() == "redone: moved"


def test_the_last_changes_are_kept(data, monkeypatch):
    assert MAX_CHANGES == 200
    monkeypatch.setattr("teachcam.collect.history.MAX_CHANGES", 30)
    history = History(data)
    for number in range(50):
        steps = [Step("folder", None, "c")] if number % 2 == 0 else [Step("folder", "c", None)]
        history.apply(f"change {number}", steps)
    num_lines = len((data / HISTORY_FILE).read_bytes().splitlines())
    history = History(data)
    assert len((data / HISTORY_FILE).read_bytes().splitlines()) == 2 * 30 < num_lines
    texts = []
    while text := history.undo():
        texts.append(text)
    assert texts == [f"undone: change {number}" for number in reversed(range(20, 50))]


DAMAGED = [
    b"{", b"[]", b"3", b'"do"', b"null", b"\xff\xfe\0", b"[" * 100_000, b'{"do": 3}', b'{"done": []}', b'{"undo": 1}',
    b'{"redo": "x"}', b'{"begin": {}}', b'{"do": {"id": "1", "text": "x", "steps": [], "more": 1}}',
    b'{"do": {"id": [], "text": "x", "steps": []}}', b'{"do": {"id": "1", "text": "x", "steps": [], "images": "1"}}',
    b'{"do": {"id": "1", "text": "x", "steps": [], "label": "../a"}}',
]  # fmt: skip


def test_damaged_lines_are_left_out_with_one_warning(data, caplog):
    History(data).apply("moved", A_TO_B)
    path = data / HISTORY_FILE
    path.write_bytes(b"\n".join([*DAMAGED, path.read_bytes(), *DAMAGED]) + b'\n{"do": {"id": "cut o')
    history = History(data)
    (warning,) = caplog.messages
    assert f"damaged lines are left out ({2 * len(DAMAGED) + 1})" in warning
    assert history.undo_text == "moved"
    assert History(data).undo() == "undone: moved"
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "path",
    ["../x.jpg", "/etc/passwd", "a/../../x", "a//x", ".rejected/../../x", "a/b/c", "", "a/", ".teach/x", "a/.x",
     "a\0/x", "\ud800/x", "a/" + "x" * 300, 3, None, [], ".rejected", ".rejected/a", "..", "."],
)  # fmt: skip
def test_a_step_never_leaves_the_dataset(data, path):
    for step in (["move", path, "a/x.jpg"], ["move", "a/x.jpg", path], ["folder", path, path]):
        with pytest.raises(ValueError, match="no "):
            Step.from_json(step)
        line = {"do": Change("1", "x").to_json()}
        line["do"]["steps"] = [step]
        (data / HISTORY_FILE).write_text(json.dumps(line) + "\n")
        before = files(data)
        assert History(data).undo() == ""
        assert files(data) == before


def test_a_folder_that_nobody_may_write_to_can_be_looked_at(data, caplog):
    (data / LOCK_FILE).mkdir()  # can't be written, not even by root
    history, before = History(data), files(data)
    assert "nothing can be undone" in caplog.text
    assert history.undo_text == ""
    with pytest.raises(DatasetError, match=r"can't change .*: Is a directory"):
        history.apply("moved", A_TO_B)
    assert files(data) == before


# The order of labels


def test_labels_of_other_programs_come_last_the_oldest_first(tmp_path):
    files = {
        "new": ["20240102T000000000-aaaaaa_0000.jpg"],
        "old": ["20240101T000000000-aaaaaa_0000.jpg", "IMG.jpg"],
        "b": [],
        "a": [],
    }
    for label in files:
        (tmp_path / label).mkdir()
    for label in ("a", "b"):
        os.utime(tmp_path / label, (1e9, 1e9))
    order = complete_order(tmp_path, [LabelEntry("gone", 0), LabelEntry("new", 1)], files)
    assert order == [LabelEntry("new", 1), LabelEntry("a", 0), LabelEntry("b", 2), LabelEntry("old", 3)]


def test_each_label_has_a_color_of_its_own(tmp_path):
    entries = [LabelEntry("a", 2), LabelEntry("b", 2), LabelEntry("a", 5)]
    assert complete_order(tmp_path, entries, {"b": [], "a": []}) == [LabelEntry("a", 2), LabelEntry("b", 0)]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"labels": 3}', '{"labels": [3]}', '{"labels": [{"name": "a"}]}', "[" * 100_000,
     '{"labels": [{"name": "a", "color": -1}]}', '{"labels": [{"name": 1, "color": 1}]}', '{"labels": null}'],
)  # fmt: skip
def test_a_damaged_order_is_made_again(tmp_path, content):
    (tmp_path / ".labels.json").write_text(content)
    assert read_order(tmp_path) == []
