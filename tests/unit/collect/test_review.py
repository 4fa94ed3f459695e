"""From the live loop's doubts to the dataset: real files, and real keys in a real window."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, assert_one_line_error, call

from teachcam.collect.camera import Frame
from teachcam.collect.dataset import read_items
from teachcam.collect.synthetic import render
from teachcam.collect.ui.review import Review
from teachcam.errors import DatasetError
from teachcam.images import read_image
from teachcam.live.prediction import to_prediction
from teachcam.live.sinks.base import Result
from teachcam.live.sinks.uncertain import MOST, Uncertain

HANDS = render("palm", 3, 90, 320, 240)


def see(sink: Uncertain, image: np.ndarray, seconds: float, confidence: float, threshold: float = 0.0) -> None:
    answer = to_prediction({"palm": confidence, "none": 1 - confidence}, threshold)
    frame = Frame(image, round(30 * seconds), seconds, time.monotonic())
    sink(Result(frame, answer, answer, 0.0, 0.0, 30.0, "cpu", ("palm", "none")))
    while sink._queue.qsize():
        time.sleep(0.001)


def kept(folder) -> list[str]:
    return sorted(f"{path.parent.name} {path.stem[-4:]}" for path in folder.glob("*/*.jpg"))


def test_only_what_it_is_unsure_of_is_kept(tmp_path, capsys):
    sink = Uncertain(tmp_path / "uncertain", live=False)
    see(sink, HANDS[0], 0, 0.99)
    see(sink, HANDS[10], 2, 0.6)
    see(sink, HANDS[20], 4, 0.3)
    see(sink, HANDS[30], 6, 0.9, threshold=0.95)  # unknown
    sink.close()
    assert kept(tmp_path / "uncertain") == ["none 0001", "palm 0000", "palm 0002"]
    assert "kept 3 uncertain frames" in capsys.readouterr().err
    (first,) = (tmp_path / "uncertain" / "none").iterdir()
    assert np.abs(read_image(first).astype(int) - HANDS[20]).mean() < 6


def test_not_often_no_near_duplicates_and_not_without_end(tmp_path):
    sink = Uncertain(tmp_path / "often", live=False)
    for index in range(60):
        see(sink, HANDS[index], index / 30, 0.6)
    sink.close()
    assert len(kept(tmp_path / "often")) == 2
    sink = Uncertain(tmp_path / "same", live=False)
    for index in range(5):
        see(sink, HANDS[0], 2.0 * index, 0.6)
    sink.close()
    assert len(kept(tmp_path / "same")) == 1
    sink = Uncertain(tmp_path / "most", live=False)
    sink.saved = MOST - 1
    for index in range(4):
        see(sink, HANDS[20 * index], 2.0 * index, 0.6)
    sink.close()
    assert len(kept(tmp_path / "most")) == 1


@pytest.fixture
def uncertain(tmp_path):
    """Four frames guessed as palm, two as none."""
    folder = tmp_path / "uncertain"
    sink = Uncertain(folder, live=False)
    for index, confidence in enumerate((0.6, 0.6, 0.6, 0.6, 0.4, 0.4)):
        see(sink, HANDS[12 * index], 2.0 * index, confidence)
    sink.close()
    return folder


def test_keys_sort_files_untouched(uncertain, tmp_path):
    data = tmp_path / "data"
    before = {path.name: path.read_bytes() for path in uncertain.glob("*/*.jpg")}
    task = Review(uncertain, data, ["thumbs_up"])
    assert (task.labels, task.left) == (["thumbs_up", "none", "palm"], 6)
    for key in ("\r", "1", "x", "s", "2", "3"):  # of none: as guessed, thumbs_up; then of palm
        assert task.draw().shape == (240, 320, 3)
        task.press(key)
    assert task.left == 0
    items = read_items(data)
    assert sorted(item.label for item in items) == ["none", "none", "palm", "thumbs_up"]
    assert len({item.session for item in items}) == 1
    assert all(item.path.read_bytes() == before[item.path.name] for item in items)
    assert len(list(uncertain.glob("*/*.jpg"))) == 1
    assert len(list(uncertain.glob(".rejected/palm/*.jpg"))) == 1
    assert len((data / "sessions.jsonl").read_text().splitlines()) == 3


def test_undo_brings_everything_back(uncertain, tmp_path):
    before = {path: path.read_bytes() for path in uncertain.glob("*/*.jpg")}
    task = Review(uncertain, tmp_path / "data", [])
    for key in "\rxs1uuuuu":
        task.press(key)
    assert {path: path.read_bytes() for path in uncertain.glob("*/*.jpg")} == before
    assert not list((tmp_path / "data").glob("*/*.jpg"))
    assert (task.left, +task.sorted) == (6, {})


def test_nothing_is_written_over(uncertain, tmp_path):
    name = sorted((uncertain / "none").iterdir())[0].name
    (tmp_path / "data/none").mkdir(parents=True)
    (tmp_path / "data/none" / name).write_bytes(b"precious")
    Review(uncertain, tmp_path / "data", []).press("\r")
    assert (tmp_path / "data/none" / name).read_bytes() == b"precious"
    assert len(list((tmp_path / "data/none").iterdir())) == 2


def test_a_broken_picture_is_passed_over_and_stays(uncertain, tmp_path):
    broken = uncertain / "none" / "0_0000.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    task = Review(uncertain, tmp_path / "data", [])
    assert task.left == 6
    assert task.draw() is not None
    assert broken.exists()


def test_nothing_to_review_is_one_line(tmp_path):
    assert_one_line_error(call("collect/capture.py", "--review", "gone", cwd=tmp_path), "nothing to review in gone")
    (tmp_path / "empty/palm").mkdir(parents=True)
    with pytest.raises(DatasetError, match="nothing to review"):
        Review(tmp_path / "empty", tmp_path / "data", [])


@pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool")
def test_in_a_window(uncertain, tmp_path, display):
    command = [sys.executable, str(ROOT / "collect/capture.py"), "--review", str(uncertain), "--label", "thumbs_up"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    display.wait_for_window("teachcam: review")
    for key in ("Return", "1", "1", "u", "3", "q"):
        display.press(key)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    assert stdout.splitlines() == [f"1 frames of {label} in data/{label}" for label in ("none", "palm", "thumbs_up")]
    assert len(read_items(tmp_path / "data")) == 3


def test_as_a_command(trained, tmp_path):
    """A model that knows little is unsure of much: what it keeps can be reviewed at once."""
    arguments = ["--model", trained / "model.onnx", "--camera", "synthetic?seed=8", "--headless", "--frames", "45"]
    result = call("live/run.py", *arguments, "--save-uncertain", "unsure", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Review(tmp_path / "unsure", tmp_path / "data", []).left >= 1
    (tmp_path / "file").touch()
    result = call("live/run.py", *arguments, "--save-uncertain", "file", cwd=tmp_path)
    assert_one_line_error(result, "--save-uncertain file")
