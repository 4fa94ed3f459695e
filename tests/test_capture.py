"""The capture command: what it records, and what it says when it can't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT, assert_one_line_error, call

from collect import capture, dataset
from collect.camera import Frame


def test_records_a_session(tmp_path):
    result = call(
        "collect/capture.py", "--label", "palm", "--camera", "synthetic:palm?seed=1", "--headless",
        "--count", 6, "--fps", 15, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == "6 frames of palm in data/palm\n"
    items = dataset.read_items(tmp_path / "data")
    assert len(items) == 6
    assert len({item.session for item in items}) == 1
    assert dataset.read_image(items[0].path).shape == (480, 640, 3)
    line = json.loads((tmp_path / "data/sessions.jsonl").read_text())
    assert (line["camera"], line["frames"]) == ("synthetic:palm?seed=1", 6)


def test_takes_frames_from_a_video_by_its_own_clock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for number in range(60):
        writer.write(np.full((48, 64, 3), 4 * number, np.uint8))
    writer.release()
    capture.main(["--label", "x", "--camera", "clip.avi", "--fps", "5", "--headless"])
    brightness = [dataset.read_image(item.path).mean() / 4 for item in dataset.read_items("data")]
    assert [round(value) for value in brightness] == list(range(0, 60, 6))


@pytest.mark.parametrize("fps", [5, 30, 29])
def test_a_jittering_camera_is_recorded_at_the_rate_asked_for(tmp_path, fps):
    recorder = capture.Recorder(tmp_path, "x", "test", fps)
    recorder.start()
    rng = np.random.default_rng(0)
    image = np.zeros((4, 4, 3), np.uint8)
    for number in range(90):
        seconds = number / 30 + rng.uniform(-0.006, 0.006)
        recorder.offer(Frame(image, number, seconds, seconds))
    recorder.stop()
    assert abs(recorder.saved - 3 * fps) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "../x", "--camera", "synthetic"], ["'../x'", "can't name a folder"]),
        (["--label", "x", "--camera", "0"], ["camera 0 does not open"]),
        (["--label", "x", "--camera", "missing.mp4"], ["no camera, file or folder named 'missing.mp4'"]),
        (["--label", "x", "--camera", "synthetic", "--count", "0"], ["--count", "at least 1"]),
        ([], ["--label"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, arguments, words):
    result = call("collect/capture.py", *arguments, "--headless", cwd=tmp_path)
    assert_one_line_error(result, *words)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_no_display_says_so(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    result = call("collect/capture.py", "--label", "x", "--camera", "synthetic", cwd=tmp_path, env=environment)
    assert_one_line_error(result, "no display", "--headless")


def test_interrupting_keeps_what_was_recorded(tmp_path):
    command = [sys.executable, str(ROOT / "collect/capture.py"), "--label", "x", "--camera", "synthetic"]
    process = subprocess.Popen([*command, "--headless", "--count", "1000"], cwd=tmp_path, stderr=subprocess.PIPE)
    folder = tmp_path / "data" / "x"
    end = time.monotonic() + 20
    while not (folder.is_dir() and any(folder.iterdir())):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(subprocess.signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    frames = dataset.read_items(tmp_path / "data")
    assert json.loads((tmp_path / "data/sessions.jsonl").read_text())["frames"] == len(frames)


@pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool")
def test_the_window_records_while_told_to(tmp_path, display):
    command = [
        sys.executable,
        str(ROOT / "collect/capture.py"),
        "--label",
        "palm",
        "--camera",
        "synthetic:palm",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    display.wait_for_window("teachcam: record palm")
    display.press("space")  # start, and stop: one session, then another
    time.sleep(1)
    display.press("space")
    display.press("space")
    time.sleep(1)
    display.press("space")
    display.press("q")
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    items = dataset.read_items(tmp_path / "data")
    assert len({item.session for item in items}) == 2
    assert stdout.startswith(f"{len(items)} frames of palm")
