"""The dataset on disk: labels, sessions, and pictures that are whole or not there."""

from __future__ import annotations

import errno
import json
import os

import cv2
import numpy as np
import pytest

from teachcam.collect import dataset as ds
from teachcam.errors import UnreadableImage
from teachcam.images import read_image


@pytest.mark.parametrize("label", ["thumbs_up", "0", "door open", "Größe", "拇指", "v1.2", "c++", "R&D", "it's (off)"])
def test_labels_that_name_a_folder(label):
    assert ds.check_label(label) == label


@pytest.mark.parametrize(
    "label",
    ["", "../x", "a/b", "/", "a\\b", "c:", "a\x00", ".hidden", "..", "x\n", "end.", "-x", " x", "x ", "a" * 101],
)
def test_labels_that_do_not(label):
    with pytest.raises(ds.DatasetError, match="can't name a folder"):
        ds.check_label(label)


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def test_a_session_is_files_and_one_line(tmp_path):
    session = ds.Session(tmp_path, "up", camera="0", note="kitchen")
    for number in range(3):
        session.save(picture(number))
    items = ds.read_items(tmp_path)
    assert [item.path.name for item in items] == [f"{session.id}_{number:04d}.jpg" for number in range(3)]
    assert {(item.label, item.session) for item in items} == {("up", session.id)}
    (line,) = (tmp_path / "sessions.jsonl").read_text().splitlines()
    known = {"session": session.id, "label": "up", "width": 80, "height": 60, "camera": "0", "note": "kitchen"}
    assert json.loads(line) == known
    assert np.abs(read_image(items[0].path).astype(int) - picture(0)).mean() < 3


def test_an_empty_session_leaves_nothing(tmp_path):
    ds.Session(tmp_path / "data", "up")
    assert not (tmp_path / "data").exists()


def test_session_ids_differ_within_a_millisecond():
    assert len({ds.new_session_id() for _ in range(2000)}) == 2000


def test_a_full_disk_keeps_what_is_saved_and_leaves_no_half(tmp_path, monkeypatch):
    session = ds.Session(tmp_path, "up")
    saved = session.save(picture())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ds.DatasetError, match=r"No space left on device \(free some space.*the 1 frames before it are saved"
    ):
        session.save(picture())
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "up").iterdir()] == [saved.name]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.98])
def test_a_truncated_picture_is_named(tmp_path, suffix, kept):
    content = cv2.imencode(suffix, picture())[1].tobytes()
    path = tmp_path / f"half{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UnreadableImage, match="half"):
        read_image(path)


def test_what_follows_the_end_of_a_jpeg_is_not_looked_at(tmp_path):
    content = cv2.imencode(".jpg", picture())[1].tobytes()
    thumbnail = cv2.imencode(".jpg", picture()[::8, ::8])[1].tobytes()
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail  # ends in an end marker of its own
    (tmp_path / "motion.jpg").write_bytes(content + b"video" * 5000)
    (tmp_path / "exif.jpg").write_bytes(content[:2] + exif + content[2:])
    (tmp_path / "half.jpg").write_bytes(content[:2] + exif + content[2 : len(content) // 2])
    assert (read_image(tmp_path / "motion.jpg") == read_image(tmp_path / "exif.jpg")).all()
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(tmp_path / "half.jpg")


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "up").mkdir()
    for number in (10, 9, 100, 0):
        (tmp_path / f"up/s_{number}.jpg").touch()
    assert [item.path.name for item in ds.read_items(tmp_path)] == ["s_0.jpg", "s_9.jpg", "s_10.jpg", "s_100.jpg"]


def test_pictures_of_other_kinds_are_read_as_bgr(tmp_path):
    gray = np.full((20, 30), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([picture(), np.full((60, 80), 9, np.uint8)]))
    assert (read_image(tmp_path / "gray.png") == 77).all()
    assert read_image(tmp_path / "gray.png").shape == (20, 30, 3)
    assert (read_image(tmp_path / "alpha.png") == picture()).all()


def test_what_is_not_a_frame_is_left_alone(tmp_path):
    for name in (
        "up/a_0001.jpg",
        "up/.half_0002.jpg.tmp",
        "up/notes.txt",
        ".rejected/b_0001.jpg",
        "loose_0001.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [item.path.name for item in ds.read_items(tmp_path)] == ["a_0001.jpg"]


def test_files_without_session_names_are_put_into_sessions_by_their_times(tmp_path):
    minutes = {"cats/IMG2.png": 0, "cats/IMG3.png": 1, "cats/IMG1.png": 90, "dogs/rex.png": 0, "dogs/s1_0001.png": 0}
    for name, at in minutes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (60 * at, 60 * at))
    items = ds.read_items(tmp_path)
    sessions = {str(item.path.relative_to(tmp_path)): item.session for item in items}
    assert sessions == {
        "cats/IMG1.png": "(cats 2)",
        "cats/IMG2.png": "(cats 1)",
        "cats/IMG3.png": "(cats 1)",
        "dogs/rex.png": "(dogs 1)",
        "dogs/s1_0001.png": "s1",
    }
    assert "names of 4 files of cats, dogs: 3 sessions guessed" in ds.guessed_sessions(items)
    assert ds.guessed_sessions(items[-1:]) == ""


def test_no_data_says_what_to_do(tmp_path):
    with pytest.raises(ds.DatasetError, match=r"no dataset at .*record one"):
        ds.read_items(tmp_path / "nowhere")
    with pytest.raises(ds.DatasetError, match=r"no images in .*record some"):
        ds.read_items(tmp_path)


def test_the_fingerprint_tells_contents_and_labels(dataset):
    items = ds.read_items(dataset)
    assert ds.fingerprint(items) == ds.fingerprint(items[::-1])
    moved = [ds.Sample(items[0].path, "other", items[0].session), *items[1:]]
    assert ds.fingerprint(moved) != ds.fingerprint(items)
