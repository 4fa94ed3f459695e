"""The dataset on disk: labels, sessions, and images that are whole or not there."""

from __future__ import annotations

import errno
import json
import os

import cv2
import numpy as np
import pytest

from teachcam.collect import dataset as ds
from teachcam.errors import UnreadableImage
from teachcam.images import encode_jpeg, read_image


def noise_image(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def test_a_session_is_files_and_one_line(tmp_path):
    session = ds.Session(tmp_path, "up", camera="0", note="kitchen")
    for number in range(3):
        session.save(noise_image(number))
    samples = ds.list_samples(tmp_path)
    assert [sample.path.name for sample in samples] == [f"{session.id}_{number:04d}.jpg" for number in range(3)]
    assert {(sample.label, sample.session) for sample in samples} == {("up", session.id)}
    (line,) = (tmp_path / "sessions.jsonl").read_text().splitlines()
    known = {"session": session.id, "label": "up", "width": 80, "height": 60, "camera": "0", "note": "kitchen"}
    assert json.loads(line) == known
    assert np.abs(read_image(samples[0].path).astype(int) - noise_image(0)).mean() < 3


def test_an_empty_session_leaves_nothing(tmp_path):
    ds.Session(tmp_path / "data", "up")
    assert not (tmp_path / "data").exists()


def test_session_ids_differ_within_a_millisecond():
    assert len({ds.new_session_id() for _ in range(2000)}) == 2000


def test_a_full_disk_keeps_saved_images_and_leaves_no_half_written_one(tmp_path, monkeypatch):
    session = ds.Session(tmp_path, "up")
    saved = session.save(noise_image())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ds.DatasetError, match=r"No space left on device \(free some space.*1 frame was saved before"):
        session.save(noise_image())
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "up").iterdir()] == [saved.name]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.98])
def test_a_truncated_image_is_unreadable(tmp_path, suffix, kept):
    content = cv2.imencode(suffix, noise_image())[1].tobytes()
    path = tmp_path / f"half{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UnreadableImage, match="half"):
        read_image(path)


def test_data_after_the_end_of_a_jpeg_is_ignored(tmp_path):
    content = encode_jpeg(noise_image())
    thumbnail = encode_jpeg(noise_image()[::8, ::8])
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail  # contains an end marker itself
    (tmp_path / "motion.jpg").write_bytes(content + b"video" * 5000)
    (tmp_path / "exif.jpg").write_bytes(content[:2] + exif + content[2:])
    (tmp_path / "half.jpg").write_bytes(content[:2] + exif + content[2 : len(content) // 2])
    assert (read_image(tmp_path / "motion.jpg") == read_image(tmp_path / "exif.jpg")).all()
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(tmp_path / "half.jpg")


def test_samples_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "up").mkdir()
    for number in (10, 9, 100, 0):
        (tmp_path / f"up/s_{number}.jpg").touch()
    assert [sample.path.name for sample in ds.list_samples(tmp_path)] == ["s_0.jpg", "s_9.jpg", "s_10.jpg", "s_100.jpg"]


def test_gray_and_transparent_images_are_read_as_bgr(tmp_path):
    gray = np.full((20, 30), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    cv2.imwrite(str(tmp_path / "opaque.png"), np.dstack([noise_image(), np.full((60, 80), 255, np.uint8)]))
    assert (read_image(tmp_path / "gray.png") == 77).all()
    assert read_image(tmp_path / "gray.png").shape == (20, 30, 3)
    assert (read_image(tmp_path / "opaque.png") == noise_image()).all()


def test_other_files_and_folders_are_ignored(tmp_path):
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
    assert [sample.path.name for sample in ds.list_samples(tmp_path)] == ["a_0001.jpg"]


def test_files_without_a_session_in_their_name_are_grouped_by_time(tmp_path):
    minutes = {"cats/IMG2.png": 0, "cats/IMG3.png": 1, "cats/IMG1.png": 90, "dogs/rex.png": 0, "dogs/s1_0001.png": 0}
    for name, at in minutes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (60 * at, 60 * at))
    samples = ds.list_samples(tmp_path)
    sessions = {str(sample.path.relative_to(tmp_path)): sample.session for sample in samples}
    assert sessions == {
        "cats/IMG1.png": "(cats 2)",
        "cats/IMG2.png": "(cats 1)",
        "cats/IMG3.png": "(cats 1)",
        "dogs/rex.png": "(dogs 1)",
        "dogs/s1_0001.png": "s1",
    }
    assert "the names of 4 files of cats, dogs contain no session: 3 sessions guessed" in ds.describe_guessed_sessions(
        samples
    )
    assert ds.describe_guessed_sessions(samples[-1:]) == ""


def test_a_missing_or_empty_dataset_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ds.DatasetError, match=r"no dataset at .*record one"):
        ds.list_samples(tmp_path / "nowhere")
    with pytest.raises(ds.DatasetError, match=r"no images in .*record some"):
        ds.list_samples(tmp_path)


@pytest.mark.parametrize("parts", [("train", "val"), ("test",)])
def test_a_dataset_that_is_divided_into_folders_says_which_to_give(tmp_path, parts):
    for part in parts:
        (tmp_path / part / "cat").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / part / "cat" / "1.jpg"), noise_image())
    with pytest.raises(ds.DatasetError, match=rf"one folder deeper, .*: give --data {tmp_path / parts[0]}"):
        ds.list_samples(tmp_path)
