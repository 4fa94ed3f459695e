"""The capture command: what it records, and its error messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import PATIENCE, ROOT, Clock, assert_one_line_error, call, call_here, wait_until

from teachcam.collect import capture, dataset
from teachcam.images import read_image
from teachcam.live import doctor, run


def test_a_session_is_recorded(tmp_path):
    result = call(
        "collect/capture.py", "--label", "palm", "--camera", "synthetic:palm?seed=1", "--headless",
        "--max-frames", 6, "--fps", 15, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == "6 frames of palm in data/palm\n"
    samples = dataset.list_samples(tmp_path / "data")
    assert len(samples) == 6
    assert len({sample.session for sample in samples}) == 1
    assert read_image(samples[0].path).shape == (480, 640, 3)
    line = json.loads((tmp_path / "data/sessions.jsonl").read_text())
    assert (line["camera"], line["fps"]) == ("synthetic:palm?seed=1", 15)


def test_a_video_is_recorded_by_its_own_clock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for number in range(60):
        writer.write(np.full((48, 64, 3), 4 * number, np.uint8))
    writer.release()
    capture.main(["--label", "x", "--camera", "clip.avi", "--fps", "5", "--headless"])
    brightness = [read_image(sample.path).mean() / 4 for sample in dataset.list_samples("data")]
    assert [round(value) for value in brightness] == list(range(0, 60, 6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "../x", "--camera", "synthetic"], ["'../x'", "can't name a folder"]),
        (["--label", "x", "--camera", "0"], ["camera 0 does not open"]),
        (["--label", "x", "--camera", "missing.mp4"], ["no camera, file or folder named 'missing.mp4'"]),
        (["--label", "x", "y", "--camera", str(ROOT / "docs")], ["a file is recorded under one label"]),
        (["--label", "x", "--camera", "synthetic", "--fps", "-1"], ["--fps", "0 or more"]),
        (["--label", "x", "--camera", "synthetic", "--width", "wide"], ["--width", "at least 1"]),
        (["--label", "x", "--camera", "synthetic", "--max-frames", "0"], ["--max-frames", "at least 1"]),
        ([], ["--label"]),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, arguments, words):
    result = call("collect/capture.py", *arguments, "--headless", cwd=tmp_path)
    assert_one_line_error(result, *words)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_headless_records_each_label_after_a_count_down(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(capture, "time", clock)
    monkeypatch.setattr(capture.ending, "sleep", clock.sleep)
    arguments = ["--label", "a", "b", "--camera", "synthetic:palm", "--fps", "20", "--duration", "0.2", "--delay", "2"]
    result = call_here("collect/capture.py", *arguments, "--headless", "--note", "kitchen", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    said = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert said == ["a in 2 s", "a in 1 s", "a", "b in 2 s", "b in 1 s", "b"]
    assert "frames a second, none lost" in result.stderr
    assert {sample.label for sample in dataset.list_samples(tmp_path / "data")} == {"a", "b"}
    assert "kitchen" in (tmp_path / "data/sessions.jsonl").read_text()


def test_a_session_ends_after_its_duration_by_the_clock_of_the_frames():
    times, stopped = iter(np.arange(5.0, 9.0, 0.25)), []
    camera = SimpleNamespace(live=True, read_frame=lambda wait: SimpleNamespace(time=next(times)))
    recorder = SimpleNamespace(
        label="a", saved={"a": 0}, done=False, measured_fps=4.0, dropped=0, set_label=lambda label: None,
        start=lambda max_frames: None, check_writer=lambda: None, stop=lambda: stopped.append(next(times)),
    )  # fmt: skip
    capture.record_headless(camera, recorder, ["a"], duration=1.0)
    assert stopped == [6.25]  # the frame after the one at 6 seconds


def test_a_flipped_camera_is_recorded_flipped_and_noted(tmp_path):
    arguments = ["--camera", "synthetic:palm?seed=1", "--headless", "--max-frames", "1", "--label"]
    options = ["--flip", "180", "--width", "320", "--height", "200"]
    for label, more in (("upright", options[2:]), ("flipped", options)):
        capture.main([*arguments, label, *more, "--data", str(tmp_path)])
    flipped, upright = (read_image(sample.path).astype(int) for sample in dataset.list_samples(tmp_path))
    assert np.abs(flipped[::-1, ::-1] - upright).mean() < 5
    assert np.abs(flipped - upright).mean() > 10
    lines = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert [line.get("flip") for line in lines] == [None, "180"]
    assert [(line["width"], line["height"]) for line in lines] == [(320, 200)] * 2


@pytest.mark.parametrize("command", [capture.main, run.main, doctor.main], ids=["capture", "live", "doctor"])
def test_every_command_with_a_camera_takes_the_same_camera_options(command, capsys):
    with pytest.raises(SystemExit):
        command(["--help"])
    text = capsys.readouterr().out
    for option in ("--camera SOURCE", "--width", "--height", "--camera-fps", "--flip"):
        assert option in text


def test_cameras_are_listed(tmp_path):
    result = call("collect/capture.py", "--list-cameras", cwd=tmp_path)
    assert "synthetic  640x480  30 FPS" in result.stdout
    assert "GStreamer: " in result.stdout
    assert "Traceback" not in result.stderr


def test_without_a_display_it_points_to_headless(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    result = call("collect/capture.py", "--label", "x", "--camera", "synthetic", cwd=tmp_path, env=environment)
    assert_one_line_error(result, "no display", "--headless")
    environment["DISPLAY"] = ":4711"
    result = call("collect/capture.py", "--label", "x", "--camera", "synthetic", cwd=tmp_path, env=environment)
    assert_one_line_error(result, "the display :4711 does not answer", "--headless")


@pytest.mark.slow
def test_it_exits_cleanly_while_the_camera_runs(tmp_path):
    """A thread that is inside OpenCV when the interpreter ends would abort the program."""
    arguments = ["--label", "palm", "--camera", "synthetic:palm?seed=1", "--headless", "--max-frames", "1"]
    assert [call("collect/capture.py", *arguments, cwd=tmp_path).returncode for _ in range(8)] == [0] * 8


def test_all_images_of_a_folder_are_recorded(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    result = call("collect/capture.py", "--label", "x", "--camera", tmp_path, "--headless", "--data", "d", cwd=tmp_path)
    assert result.stdout == "12 frames of x in d/x\n"


def test_an_interrupted_recording_keeps_its_images(tmp_path):
    command = [sys.executable, str(ROOT / "collect/capture.py"), "--label", "x", "--camera", "synthetic"]
    process = subprocess.Popen([*command, "--headless", "--max-frames", "1000"], cwd=tmp_path, stderr=subprocess.PIPE)
    folder = tmp_path / "data" / "x"
    wait_until(lambda: folder.is_dir() and any(folder.iterdir()))
    process.send_signal(subprocess.signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    for sample in dataset.list_samples(tmp_path / "data"):
        read_image(sample.path)


@pytest.mark.slow
@pytest.mark.display
def test_the_keys_of_the_window(tmp_path, display):
    command = [
        sys.executable,
        str(ROOT / "collect/capture.py"),
        "--label",
        "palm",
        "none",
        "--camera",
        "synthetic:palm",
    ]
    process = subprocess.Popen(
        [*command, "--fps", "20"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    display.wait_for_window("teachcam: record palm none")

    def recorded(label: str) -> list[int]:
        """Return the number of frames of each session of a label, in the order of recording."""
        try:
            samples = [sample for sample in dataset.list_samples(tmp_path / "data") if sample.label == label]
        except dataset.DatasetError:
            return []
        sessions = sorted({sample.session for sample in samples})
        return [sum(sample.session == session for sample in samples) for session in sessions]

    for number in range(2):
        display.press("space")  # start
        wait_until(lambda number=number: len(recorded("palm")) > number and recorded("palm")[number] > 5)
        display.press("space")  # stop
    display.press("u")  # takes the second one back
    wait_until(lambda: len(recorded("palm")) == 1)
    display.press("2")
    for number in (1, 2):
        display.press("s")
        wait_until(lambda number=number: recorded("none") == [number])
    with display.hold("r"):  # when it is let go, it stops: tests/unit/collect/test_viewfinder.py
        wait_until(lambda: len(recorded("none")) == 2 and recorded("none")[1] > 10)
    display.press("m")
    display.press("h")
    display.press("q", pictures=0)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    palms, others = (sum(recorded(label)) for label in ("palm", "none"))
    assert f"{palms} frames of palm in data/palm\n{others} frames of none" in stdout
    assert len(list((tmp_path / "data/.rejected/palm").iterdir())) > 5
