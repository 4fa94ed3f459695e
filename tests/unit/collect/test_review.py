"""UncertainFrames frames are saved by the live loop, and reviewed in a window: real files, and real keys."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PATIENCE, ROOT, assert_one_line_error, call

from teachcam.collect.camera import Frame
from teachcam.collect.dataset import list_samples
from teachcam.collect.synthetic import render
from teachcam.collect.ui.review import Review
from teachcam.errors import DatasetError
from teachcam.images import read_image
from teachcam.live.prediction import to_prediction
from teachcam.live.sinks.base import FrameResult
from teachcam.live.sinks.uncertain import MAX_SAVED, UncertainFrames

HANDS = render("palm", 3, 90, 320, 240)


def show(sink: UncertainFrames, image: np.ndarray, seconds: float, confidence: float, threshold: float = 0.0) -> None:
    prediction = to_prediction({"palm": confidence, "none": 1 - confidence}, threshold)
    frame = Frame(image, round(30 * seconds), seconds, time.monotonic())
    sink(FrameResult(frame, prediction, prediction, 0.0, 0.0, 30.0, classifier=None))
    while sink._queue.qsize():
        time.sleep(0.001)


def saved_in(folder) -> list[str]:
    return sorted(f"{path.parent.name} {path.stem[-4:]}" for path in folder.glob("*/*.jpg"))


def test_only_uncertain_frames_are_saved(tmp_path, caplog):
    caplog.set_level("INFO", "teachcam")
    sink = UncertainFrames(tmp_path / "uncertain", live=False)
    show(sink, HANDS[0], 0, 0.99)
    show(sink, HANDS[10], 2, 0.6)
    show(sink, HANDS[20], 4, 0.3)
    show(sink, HANDS[30], 6, 0.9, threshold=0.95)  # unknown
    sink.close()
    assert saved_in(tmp_path / "uncertain") == ["none 0001", "palm 0000", "palm 0002"]
    assert "saved 3 uncertain frames" in caplog.text
    (first,) = (tmp_path / "uncertain" / "none").iterdir()
    assert np.abs(read_image(first).astype(int) - HANDS[20]).mean() < 6


def test_few_per_second_no_near_duplicates_and_a_limit_per_run(tmp_path):
    sink = UncertainFrames(tmp_path / "often", live=False)
    for index in range(60):
        show(sink, HANDS[index], index / 30, 0.6)
    sink.close()
    assert len(saved_in(tmp_path / "often")) == 2
    sink = UncertainFrames(tmp_path / "same", live=False)
    for index in range(5):
        show(sink, HANDS[0], 2.0 * index, 0.6)
    sink.close()
    assert len(saved_in(tmp_path / "same")) == 1
    sink = UncertainFrames(tmp_path / "most", live=False)
    sink.saved = MAX_SAVED - 1
    for index in range(4):
        show(sink, HANDS[20 * index], 2.0 * index, 0.6)
    sink.close()
    assert len(saved_in(tmp_path / "most")) == 1


@pytest.fixture
def uncertain(tmp_path):
    """Four frames predicted as palm, two as none."""
    folder = tmp_path / "uncertain"
    sink = UncertainFrames(folder, live=False)
    for index, confidence in enumerate((0.6, 0.6, 0.6, 0.6, 0.4, 0.4)):
        show(sink, HANDS[12 * index], 2.0 * index, confidence)
    sink.close()
    return folder


def test_keys_move_files_without_changing_them(uncertain, tmp_path):
    data = tmp_path / "data"
    before = {path.name: path.read_bytes() for path in uncertain.glob("*/*.jpg")}
    review = Review(uncertain, data, ["thumbs_up"])
    assert (review.labels, review.left) == (["thumbs_up", "none", "palm"], 6)
    for key in ("\r", "1", "x", "s", "2", "3"):  # first the two of none, then the four of palm
        assert review.draw().shape == (240, 320, 3)
        review.press(key)
    assert review.left == 0
    samples = list_samples(data)
    assert sorted(sample.label for sample in samples) == ["none", "none", "palm", "thumbs_up"]
    assert len({sample.session for sample in samples}) == 1
    assert all(sample.path.read_bytes() == before[sample.path.name] for sample in samples)
    assert len(list(uncertain.glob("*/*.jpg"))) == 1
    assert len(list(uncertain.glob(".rejected/palm/*.jpg"))) == 1
    assert len((data / "sessions.jsonl").read_text().splitlines()) == 3


def test_undo_restores_every_file(uncertain, tmp_path):
    before = {path: path.read_bytes() for path in uncertain.glob("*/*.jpg")}
    review = Review(uncertain, tmp_path / "data", [])
    for key in "\rxs1uuuuu":
        review.press(key)
    assert {path: path.read_bytes() for path in uncertain.glob("*/*.jpg")} == before
    assert not list((tmp_path / "data").glob("*/*.jpg"))
    assert (review.left, +review.sorted) == (6, {})


def test_no_file_is_overwritten(uncertain, tmp_path):
    name = sorted((uncertain / "none").iterdir())[0].name
    (tmp_path / "data/none").mkdir(parents=True)
    (tmp_path / "data/none" / name).write_bytes(b"precious")
    Review(uncertain, tmp_path / "data", []).press("\r")
    assert (tmp_path / "data/none" / name).read_bytes() == b"precious"
    assert len(list((tmp_path / "data/none").iterdir())) == 2


def test_an_unreadable_file_is_skipped_and_stays(uncertain, tmp_path):
    broken = uncertain / "none" / "0_0000.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    review = Review(uncertain, tmp_path / "data", [])
    assert review.left == 6
    assert review.draw() is not None
    assert broken.exists()


def test_an_empty_folder_is_a_one_line_error(tmp_path):
    assert_one_line_error(call("collect/capture.py", "--review", "gone", cwd=tmp_path), "nothing to review in gone")
    (tmp_path / "empty/palm").mkdir(parents=True)
    with pytest.raises(DatasetError, match="nothing to review"):
        Review(tmp_path / "empty", tmp_path / "data", [])


@pytest.mark.display
def test_in_a_window(uncertain, tmp_path, display):
    command = [sys.executable, str(ROOT / "collect/capture.py"), "--review", str(uncertain), "--label", "thumbs_up"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    display.wait_for_window("teachcam: review")
    for key in ("Return", "1", "1", "u", "3"):
        display.press(key, pictures=1)
    display.press("q", pictures=0)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert stdout.splitlines() == [f"1 frame of {label} in data/{label}" for label in ("none", "palm", "thumbs_up")]
    assert len(list_samples(tmp_path / "data")) == 3


@pytest.mark.slow
def test_as_a_command(trained, tmp_path):
    """A model trained on few images is often uncertain. The frames it saves can be reviewed at once."""
    arguments = [
        "--model",
        trained / "model.onnx",
        "--camera",
        "synthetic?seed=8&fps=120",
        "--headless",
        "--max-frames",
        "180",
    ]
    result = call("live/run.py", *arguments, "--save-uncertain", "unsure", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Review(tmp_path / "unsure", tmp_path / "data", []).left >= 1
    (tmp_path / "file").touch()
    result = call("live/run.py", *arguments, "--save-uncertain", "file", cwd=tmp_path)
    assert_one_line_error(result, "--save-uncertain file")
