"""Names of labels and places: what every computer can hold, and what is one name on some of them."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from conftest import assert_one_line_error, call_here

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import (
    TIME_FORMAT,
    Session,
    append_line,
    check_labels,
    label_folders,
    last_place,
    list_samples,
    read_places,
    set_place,
)
from teachcam.collect.left_out import describe_unportable_labels
from teachcam.collect.names import check_label, check_place
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.review import Review
from teachcam.errors import DatasetError
from teachcam.live.feedback import CorrectionWriter
from teachcam.teach.label_images import LabelImages

IMAGE = np.zeros((8, 8, 3), np.uint8)
NFD = "gru\u0308n"


@pytest.mark.parametrize(
    "label",
    ["thumbs_up", "0", "door open", "Größe", "拇指", "v1.2", "c++", "R&D", "it's (off)", "cup, red", "☕", "icon",
     "com", "com10", "console", "ä" * 100],
)  # fmt: skip
def test_labels_that_can_name_a_folder(label):
    assert check_label(label) == label


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("", "it is empty"),
        ("../x", "/ would divide it into folders"),
        ("a\\b", r"\\ would divide it"),
        ("c:", "Windows forbids : in names: leave it out"),
        ('<"what?">', 'Windows forbids " < > \\? in names: leave them out'),
        ("a\x00", r"it contains U\+0000, a character that is not shown"),
        ("x\n", r"U\+000A"),
        ("👨\u200d👩", r"U\+200D"),
        ("..", "a name that begins with a dot is hidden"),
        (".hidden", "begins with a dot"),
        ("end.", "Windows drops a dot at the end"),
        ("x ", "Windows drops a blank at the end"),
        (" x", "it begins with a blank"),
        ("-x", "like an option of a command"),
        ("a" * 101, "it has 101 characters, and at most 100 are allowed"),
        ("拇" * 86, "it takes 258 bytes, and at most 255 are allowed"),
        ("CON", "Windows keeps the name CON for a device"),
        ("nul.txt", "Windows keeps the name nul for a device"),
        ("aux .x", "Windows keeps the name aux for a device"),
        ("com1", "for a device"),
        ("LPT³", "for a device"),
        ("Sessions.jsonl", "a file of the dataset has this name"),
    ],
)
def test_the_refusal_of_a_label_says_what_is_wrong_with_it(label, words):
    with pytest.raises(DatasetError, match=f"can't name a folder: .*{words}") as refused:
        check_label(label)
    assert "letters, digits" not in str(refused.value)


@pytest.mark.parametrize(("first", "second"), [("none", "NONE"), ("grün", "GRU\u0308N"), ("straße", "STRASSE")])
def test_a_new_label_must_differ_in_more_than_case(first, second):
    with pytest.raises(DatasetError, match=f"differs from '{first}' only in case"):
        check_label(second, [first])
    assert check_label(NFD, ["grün"]) == "grün"  # not new: one label in two forms


def test_a_label_that_is_there_keeps_its_name():
    existing = ["none", "NONE", "con", "a:b"]
    assert [check_label(label, existing) for label in existing] == existing
    for label in ("../x", "..", "a\nb"):  # whatever a model predicts, nothing is written beside the dataset
        with pytest.raises(DatasetError, match="can't name a folder"):
            check_label(label, [label])


def test_labels_to_record_are_compared_with_each_other_and_with_the_dataset(tmp_path):
    (tmp_path / "none").mkdir()
    assert check_labels(tmp_path, ["palm", "none", "palm"]) == ["palm", "none"]
    assert check_labels(tmp_path / "nowhere", ["palm"]) == ["palm"]
    for labels in (["None"], ["palm", "Palm"]):
        with pytest.raises(DatasetError, match="only in case"):
            check_labels(tmp_path, labels)


@pytest.mark.parametrize("command", ["collect/capture.py", "teach/teach.py"])
def test_commands_refuse_a_label_in_another_case(tmp_path, command):
    (tmp_path / "data" / "none").mkdir(parents=True)
    arguments = ("--camera", "synthetic", "--place", "", "--label")
    assert_one_line_error(call_here(command, *arguments, "NONE", cwd=tmp_path), "'NONE' differs from 'none' only")
    assert_one_line_error(call_here(command, *arguments, "a", "A", cwd=tmp_path), "'A' differs from 'a' only in case")


def test_whoever_writes_images_uses_the_rule(tmp_path):
    Session(tmp_path, "none").save(IMAGE)
    with pytest.raises(DatasetError, match="only in case"):
        Session(tmp_path, "NONE")
    with pytest.raises(DatasetError, match="only in case"):
        CorrectionWriter(tmp_path)(IMAGE, "None")
    with Camera("synthetic:palm") as camera, Recorder(camera, tmp_path, "none") as recorder:
        with pytest.raises(DatasetError, match="only in case"):
            recorder.set_label("NONE")
        recorder.set_label(NFD)
        assert recorder.label == "grün"


def test_the_studio_refuses_a_label_in_another_case_but_changes_the_case_of_one(tmp_path):
    labels = LabelImages(tmp_path)
    labels.add("none")
    labels.refresh()
    with pytest.raises(DatasetError, match="only in case"):
        labels.add("NONE")
    labels.rename("none", "NONE")
    assert [folder.name for folder in label_folders(tmp_path)] == ["NONE"]


def test_reviewed_images_go_to_the_label_that_is_there(tmp_path):
    for label in ("NONE", "con"):
        (tmp_path / "uncertain" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "uncertain" / label / "s_0.jpg"), IMAGE)
    (tmp_path / "data" / "none").mkdir(parents=True)
    review = Review(tmp_path / "uncertain", tmp_path / "data", [])
    assert review.labels == ["none", "con"]
    review.press("\r")
    assert review.left == 1
    review.press("\r")  # con is no label of the dataset
    assert review.left == 1
    assert "Windows keeps the name con" in review._message
    assert [path.parent.name for path in (tmp_path / "data").glob("*/*.jpg")] == ["none"]


def test_a_dataset_with_names_that_only_linux_can_hold_is_read_and_added_to(tmp_path):
    for label in ("none", "NONE", "con"):
        (tmp_path / label).mkdir()
        cv2.imwrite(str(tmp_path / label / "s_0.jpg"), IMAGE)
        Session(tmp_path, label).save(IMAGE)
    assert {sample.label for sample in list_samples(tmp_path)} == {"none", "NONE", "con"}
    (line,) = describe_unportable_labels(tmp_path)
    assert line.startswith("label 'con' should have another name: Windows keeps")
    shown = call_here("collect/check.py", "--data", tmp_path, cwd=tmp_path).stdout
    assert "warning: label 'con' should have another name" in shown
    assert "warning: labels 'NONE', 'none' look alike" in shown


# Places


def test_a_place_is_one_line_of_text():
    assert check_place(" kitchen: 2nd/3rd floor ") == "kitchen: 2nd/3rd floor"
    for place, words in (("a\nb", r"place 'a\\nb': it contains U\+000A"), ("a" * 101, "it has 101 characters")):
        with pytest.raises(DatasetError, match=words):
            check_place(place)


def test_places_that_differ_only_in_case_are_one_in_the_spelling_of_the_first_session(tmp_path):
    for session, place in (("1", "Küche"), ("2", "ku\u0308che"), ("3", "attic")):
        set_place(tmp_path, [session], place)
    assert read_places(tmp_path) == {"1": "Küche", "2": "Küche", "3": "attic"}
    set_place(tmp_path, ["1", "2"], "KÜCHE")  # whoever wants another spelling gets it
    assert read_places(tmp_path) == {"1": "KÜCHE", "2": "KÜCHE", "3": "attic"}


def test_the_last_place_has_the_spelling_that_counts(tmp_path):
    set_place(tmp_path, ["1"], "Kitchen")
    append_line(tmp_path, {"session": "2", "time": time.strftime(TIME_FORMAT), "place": "kitchen"})
    assert last_place(tmp_path) == "Kitchen"
