"""Commands in other surroundings: consoles that are not UTF-8, low priority, `~` in options, folders of pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, SMALL, call, call_here

from teachcam.collect.camera import Camera
from teachcam.live.sinks import base

DATA = ROOT / "tests/data"


@pytest.fixture
def model(trained) -> Path:
    return trained / "model.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])  # Latin-1 lacks fewer characters than ASCII
def test_a_console_that_lacks_characters_ends_no_command(dataset, tmp_path, encoding):
    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "palm").rename(data / "café ☕")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in (
        ("collect/capture.py", "--label", "café ☕", "--camera", "synthetic:palm", "--headless", "--max-frames", 2),
        ("collect/check.py",),
        ("train/finetune.py", "--strategy", "head", *SMALL),
        ("export/to_onnx.py",),
        ("export/to_onnx.py", "--describe", "runs/latest/model.onnx"),
        ("live/run.py", "--camera", "synthetic", "--headless", "--max-frames", 90),
    ):
        arguments = [str(part) for part in command[1:]]
        run = subprocess.run(
            [sys.executable, str(ROOT / command[0]), *arguments], cwd=tmp_path, env=environment, capture_output=True
        )
        assert run.returncode == 0, run.stderr
        assert b"Traceback" not in run.stderr


def test_tilde_is_the_home_folder_in_every_option(dataset, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(dataset, home / "data")
    (tmp_path / "a.args").write_text(
        "--data=~/data\n--out=~/run\n--strategy=head\n--backbone=squeezenet1_1\n--image-size=64\n"
    )
    monkeypatch.setenv("HOME", str(home))
    for command in (
        ("train/finetune.py", "@a.args"),
        ("export/to_onnx.py", "--checkpoint=~/run/checkpoint.pt", "--out=~/model.onnx"),
        ("live/run.py", "--model=~/model.onnx", "--camera=~/data/palm", "--headless", "--record=~/out.mp4"),
        ("collect/check.py", "--data=~/data", "--html=~/check.html"),
    ):
        result = call_here(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.args", "home", "runs"]  # runs/latest
    assert {"run", "model.onnx", "out.mp4", "check.html"} <= {path.name for path in home.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness per thread")
def test_a_niceness_that_can_not_be_lowered_stops_nothing(model, tmp_path):
    command = ["nice", "-n", "10", sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--headless"]
    if os.geteuid() == 0:  # root may do everything, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv, or another user than root")
        command = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-all", *command]
    arguments = ["--camera", str(DATA / "vfr.mp4"), "--json", "--record", "out.mp4"]
    run = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 40
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[0]


def test_nothing_is_kept_for_usage_statistics(model, tmp_path):
    """ONNX Runtime 1.29 and later keeps a device id and a queue of events in the home folder, if it is let."""
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    arguments = ("--model", model, "--camera", DATA / "vfr.mp4", "--headless")
    assert call("live/run.py", *arguments, cwd=tmp_path, env=environment).returncode == 0
    assert list((tmp_path / "home").rglob("*")) == []


def test_the_priority_is_only_ever_lowered(monkeypatch):
    asked = []
    monkeypatch.setattr(base.os, "getpriority", lambda *_: 10, raising=False)
    monkeypatch.setattr(base.os, "setpriority", lambda *arguments: asked.append(arguments[-1]), raising=False)
    base.lower_thread_priority(5)
    base.lower_thread_priority(19)
    assert asked == ([10, 19] if sys.platform == "linux" else [])

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(base.os, "setpriority", refuse, raising=False)
    base.lower_thread_priority(5)


@pytest.mark.parametrize("name", ["claims_2000fps.ts", "vfr.mp4", "restart.ts"])
def test_the_lines_and_the_recording_keep_the_frames_own_times(model, tmp_path, name):
    arguments = ("--model", model, "--camera", DATA / name, "--headless", "--json", "--record", "out.mp4")
    result = call("live/run.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    times = [json.loads(line)["time_s"] for line in result.stdout.splitlines()]
    with Camera(DATA / name) as camera:
        assert times == pytest.approx([frame.time for frame in camera], abs=1e-5)
    with Camera(tmp_path / "out.mp4") as camera:
        assert list(camera)[-1].time == pytest.approx(times[-1], abs=0.12)


def test_a_recording_of_a_slow_video_lasts_as_long_as_the_video(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "slow.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 0.2, (64, 48))
    for _ in range(4):
        writer.write(np.full((48, 64, 3), 99, np.uint8))
    writer.release()
    arguments = ("--model", model, "--camera", "slow.avi", "--headless", "--record", "out.mp4")
    assert call("live/run.py", *arguments, cwd=tmp_path).returncode == 0
    with Camera(tmp_path / "out.mp4") as camera:
        assert list(camera)[-1].time == pytest.approx(20, abs=0.1)


@pytest.mark.slow
def test_each_picture_of_a_folder_gets_a_line_with_its_name(model, tmp_path):
    for name in ("b10", "b9", "a"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((48, 64, 3), 99, np.uint8))
    arguments = ("--model", model, "--camera", tmp_path, "--headless")
    plain = call("live/run.py", *arguments, cwd=tmp_path)
    assert [line.split()[0] for line in plain.stdout.splitlines()] == ["a.png", "b9.png", "b10.png"]
    lines = [json.loads(line) for line in call("live/run.py", *arguments, "--json", cwd=tmp_path).stdout.splitlines()]
    assert [line["file"] for line in lines] == ["a.png", "b9.png", "b10.png"]


def test_a_recording_keeps_the_shape_of_images_that_change_their_size(model, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, shape in enumerate([(48, 64, 3)] * 20 + [(64, 48, 3)] * 20):
        cv2.imwrite(str(pictures / f"{number}.png"), np.full(shape, 200, np.uint8))
    arguments = ("--model", model, "--camera", pictures, "--headless", "--record", "out.mkv")
    assert call("live/run.py", *arguments, cwd=tmp_path).returncode == 0
    with Camera(tmp_path / "out.mkv") as camera:
        images = [frame.image for frame in camera]
    width = images[0].shape[1]
    wide, tall = (np.mean(image[image.shape[0] // 2] > 100, axis=1) > 0.5 for image in (images[2], images[-2]))
    assert wide.mean() > 0.95
    assert tall.sum() == pytest.approx(width * 9 / 16, rel=0.05)
