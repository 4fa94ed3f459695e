"""The loop with a camera that breaks, sinks that fail or hang, and models that are replaced."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import LABELS, ROOT, call, wait_until

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import read_items
from teachcam.collect.synthetic import render
from teachcam.errors import UserError
from teachcam.files import write_atomic
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.occlusion import heat_map
from teachcam.live.prediction import Prediction
from teachcam.live.sinks import video as video_module
from teachcam.live.sinks.overlay import annotate
from teachcam.live.sinks.text import JsonLines, LabelChanges
from teachcam.live.sinks.video import Video

FRAMES = render("palm", 1, 30, 320, 240)


class Source:
    """A live source of 200 frames a second, which breaks when it is told to."""

    live, fps = True, 200.0
    broken = threading.Event()

    def read(self) -> np.ndarray | None:
        time.sleep(0.005)
        if self.broken.is_set():
            self.broken.clear()
            return None
        return FRAMES[time.monotonic_ns() % len(FRAMES)]

    def close(self):
        pass


class Notes(list):
    """A sink that keeps every result."""

    closed = False

    def __call__(self, result) -> bool:
        self.append(result)
        return True

    def close(self):
        self.closed = True


@pytest.fixture
def camera():
    with Camera("0", opener=lambda *_: Source()) as camera:
        yield camera


@pytest.fixture(scope="module")
def model(trained):
    return trained / "model.onnx"


def test_a_camera_that_goes_and_comes_back_is_waited_for(camera, model):
    notes, stop = Notes(), threading.Event()
    thread = threading.Thread(target=loop, args=(camera, Classifier(model), [notes]), kwargs={"stop": stop})
    thread.start()
    wait_until(lambda: len(notes) > 5)
    Source.broken.set()
    wait_until(lambda: camera.lost)
    before = len(notes)
    wait_until(lambda: not camera.lost and len(notes) > before + 5)
    stop.set()
    thread.join(5)
    assert notes.closed


def test_a_sink_that_fails_is_left_out_and_the_last_ones_error_is_raised(camera, model, capfd):
    class Broken(Notes):
        def __call__(self, result):
            if len(self) == 3:
                raise OSError(28, "No space left on device")
            return super().__call__(result)

    notes = Notes()
    assert loop(camera, Classifier(model), [Broken(), notes], most=10) == 10
    assert len(notes) == 10
    assert "went on without: [Errno 28] No space left on device" in capfd.readouterr().err
    with pytest.raises(OSError, match="No space"):
        loop(camera, Classifier(model), [Broken()], most=10)


@pytest.mark.parametrize("kind", [JsonLines, LabelChanges])
def test_a_reader_that_never_reads_holds_up_no_live_loop(kind, camera, model, monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        sink, notes = kind(live=True), Notes()
        monkeypatch.undo()
        sink._queue.maxsize = 20
        os.set_blocking(writer, True)
        stdout.write("x" * 65536)  # the pipe is full: the next write waits for ever
        stdout.flush()
        close, sink.close = sink.close, lambda: close(stalled=0.2)
        started = time.monotonic()
        with pytest.raises(UserError, match="stdout: it can't be written to any more"):
            loop(camera, Classifier(model), [sink, notes], most=100)
        assert len(notes) == 100
        assert time.monotonic() - started < 10
        assert kind is LabelChanges or sink.dropped >= 70
        os.close(reader)
        sink._thread.join(5)
        with contextlib.suppress(BrokenPipeError):
            stdout.close()


def test_a_closed_pipe_leaves_the_recording_going(model, tmp_path):
    command = f"{sys.executable} {ROOT}/live/run.py --model {model} --camera synthetic --frames 40 --headless --json"
    shell = ["bash", "-c", f"{command} --record out.mp4 | head -n 2; exit ${{PIPESTATUS[0]}}"]
    result = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "went on without: [Errno 32] Broken pipe" in result.stderr
    assert "40 frames" in result.stderr
    assert int(cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) >= 35


def test_a_disk_that_fills_ends_the_recording_whole_and_nothing_else(camera, model, tmp_path, monkeypatch, capfd):
    usage = shutil.disk_usage(tmp_path)
    notes, video = Notes(), Video(tmp_path / "out.mp4", 30, live=True)
    monkeypatch.setattr(video_module, "KEPT_FREE", 0)
    filling = threading.Timer(1.5, lambda: monkeypatch.setattr(video_module, "KEPT_FREE", usage.total + 1))
    filling.start()
    assert loop(camera, Classifier(model), [video, notes], most=600) == 600
    assert "free, so the recording ended here" in capfd.readouterr().err
    video._thread.join(5)
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[0]


def test_a_newer_model_is_taken_without_a_pause_and_a_broken_one_is_not(camera, run_copy, capfd):
    path = run_copy / "model.onnx"
    content = path.read_bytes()
    notes, stop, watcher = Notes(), threading.Event(), ModelWatcher(path, "cpu", period=0.02)
    settings = {"watcher": watcher, "stop": stop}
    thread = threading.Thread(target=loop, args=(camera, Classifier(path), [notes]), kwargs=settings)
    thread.start()
    wait_until(lambda: notes)
    write_atomic(path, content.replace(b'"palm"', b'"hand"'))
    wait_until(lambda: notes[-1].labels[0] == "hand")
    write_atomic(path, content[:5000])
    wait_until(lambda: "kept the old model" in capfd.readouterr().err)
    write_atomic(path, content.replace(b'"palm"', b'"fist"'))
    wait_until(lambda: notes[-1].labels[0] == "fist")
    stop.set()
    thread.join(5)
    watcher.close()
    for result in notes:
        assert tuple(result.answer.probabilities) == tuple(result.raw.probabilities) == result.labels
        assert result.answer.label in result.labels
    assert [result.labels[0] for result in notes] == sorted(
        (result.labels[0] for result in notes), key=["palm", "hand", "fist"].index
    )


def test_a_newer_checkpoint_is_exported_and_taken(camera, run_copy, monkeypatch):
    monkeypatch.chdir(run_copy.parent.parent)
    (run_copy.parent.parent / "train.py").touch()  # the user's own, not to be taken for our package
    (run_copy.parent / "latest").symlink_to("copy")
    before = run_copy / "model.onnx"
    watcher = ModelWatcher(None, "cpu", period=0.02)
    written = before.stat().st_mtime_ns
    checkpoint = run_copy / "checkpoint.pt"
    write_atomic(checkpoint, checkpoint.read_bytes())
    newer = None

    def taken() -> bool:
        nonlocal newer
        newer = newer or watcher.take()
        return newer is not None

    wait_until(taken, seconds=60)
    watcher.close()
    assert newer.path.stat().st_mtime_ns > written


def test_json_goes_to_stdout_while_a_model_is_loaded(run_copy, tmp_path):
    """Loading keeps what ONNX Runtime prints off stdout, for the whole program: the answers must not follow it."""
    model = run_copy / "model.onnx"
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--camera", "synthetic", "--watch"]
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    with stdout.open("w") as out, stderr.open("w") as err:
        process = subprocess.Popen([*command, "--headless", "--json"], cwd=tmp_path, stdout=out, stderr=err)
    wait_until(lambda: "palm" in stderr.read_text(), seconds=30)
    for count in (1, 2, 3):
        write_atomic(model, model.read_bytes())
        wait_until(lambda count=count: stderr.read_text().count("took the new model") == count, seconds=30)
    process.terminate()
    assert process.wait(30) == 130
    answers = [json.loads(line) for line in stdout.read_text().splitlines()]
    assert {answer["label"] for answer in answers} <= set(LABELS)
    assert f"{len(answers)} frames, " in stderr.read_text()
    assert "{" not in stderr.read_text()


def test_classifier_watches_a_camera(model, tmp_path):
    for index, image in enumerate(FRAMES[:5]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    classifier = Classifier(model)
    with Camera(tmp_path) as camera:
        answers = list(classifier.predict_stream(camera, smoothing=0))
    assert answers == [classifier.classify(image) for image in FRAMES[:5]]


def test_the_heat_map_shows_what_speaks_for_the_answer(model):
    """A model that looks at one corner: only there does hiding something change its answer."""

    class Corner:
        contract = Classifier(model).contract

        def probabilities(self, frame):
            light = float(frame[:60, :60].mean()) / 255
            return np.array([light, 1 - light], np.float32)

    image = np.zeros((240, 320, 3), np.uint8)
    image[:64, :85] = 255
    heat = heat_map(Corner(), image)
    assert heat.shape == (6, 6)
    assert heat.max() == heat[:2, :2].max() == 1
    assert heat[3:, 3:].max() == 0
    assert heat_map(Corner(), np.full_like(image, 255)).max() == 0  # hiding white behind white changes nothing
    assert heat_map(Classifier(model), FRAMES[0]).min() >= 0


@pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool")
def test_keys_in_the_window(model, tmp_path, display):
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--camera", "synthetic?seed=5"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    display.wait_for_window("teachcam")
    for key, saved in (("1", 1), ("h", 1), ("2", 2), ("1", 3), ("question", 3), ("q", 3)):
        display.press(key)
        wait_until(lambda saved=saved: len(list((tmp_path / "data").glob("*/*.jpg"))) == saved, seconds=20)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    items = read_items(tmp_path / "data")
    assert sorted(item.label for item in items) == ["palm", "palm", "thumbs_down"]
    assert len({item.session for item in items}) == 2


def test_bad_input_is_one_line_and_exit_2(model, tmp_path):
    for arguments, words in (
        (["--smoothing", "-1"], "--smoothing"),
        (["--min-hold", "nan"], "--min-hold"),
        (["--http", "no:port:here"], "--http"),
        (["--on", "palm"], "LABEL=COMMAND"),
        (["--record", "x.avi"], "ends in .mp4"),
    ):
        result = call("live/run.py", "--model", model, "--camera", "synthetic", "--headless", *arguments, cwd=tmp_path)
        assert result.returncode == 2
        assert words in result.stderr.strip().splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_user_errors_of_a_sink_end_nothing_either(camera, model):
    class Refuses(Notes):
        def __call__(self, result):
            raise UserError("no")

    notes = Notes()
    assert loop(camera, Classifier(model), [Refuses(), notes], most=3) == 3


def test_a_tiny_picture_is_enlarged_before_it_is_written_on():
    picture = annotate(np.zeros((28, 20, 3), np.uint8), Prediction("palm", 0.5, {"palm": 0.5, "none": 0.5}), "30 FPS")
    assert picture.shape == (252, 180, 3)
    assert picture.max() == 255
