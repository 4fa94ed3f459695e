"""Slow, stalled and broken sinks, and recordings that are complete whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from conftest import LABELS, PATIENCE, ROOT, Clock, call_here, wait_until

from teachcam.collect.camera import Camera, Frame
from teachcam.contract import Contract
from teachcam.errors import UserError
from teachcam.export.metadata import write_metadata
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.prediction import Prediction
from teachcam.live.sinks import base
from teachcam.live.sinks.base import MAX_QUEUED_IMAGES, FrameResult, ThreadedSink
from teachcam.live.sinks.text import LabelChanges
from teachcam.live.sinks.uncertain import UncertainFrames
from teachcam.live.sinks.video import Video


@pytest.fixture
def model(trained):
    return trained / "model.onnx"


def result(number: int, rate: float = 30.0) -> FrameResult:
    prediction = Prediction("palm", 1.0, {"palm": 1.0})
    frame = Frame(np.full((48, 64, 3), number % 256, np.uint8), number, number / rate, time.monotonic())
    classifier = SimpleNamespace(provider="cpu", contract=SimpleNamespace(labels=("palm",)))
    return FrameResult(frame, prediction, prediction, 0.001, 0.001, rate, classifier)


def count_frames(path) -> int:
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    return count


class Gated(Video):
    """A video whose writing waits until the test opens the gate."""

    def __init__(self, *arguments, **options):
        self.gate = threading.Event()
        super().__init__(*arguments, **options)

    def _write(self, entry):
        assert self.gate.wait(PATIENCE)
        super()._write(entry)


class Broken(ThreadedSink):
    closed = False

    def _name(self):
        return "broken"

    def _prepare(self, result):
        return result

    def _write(self, entry):
        raise TypeError("nobody expected this")


def test_a_slow_writer_finishes_its_file_and_a_stalled_one_is_an_error(tmp_path, monkeypatch):
    class Slow(Video):
        def _write(self, entry):
            clock.now += 1.0
            super()._write(entry)

    with monkeypatch.context() as patch:
        patch.setattr(base, "time", clock := Clock())
        slow = Slow(tmp_path / "slow.mp4", 30.0, live=True)
        for number in range(12):
            slow(result(number))
        slow.close(stall_timeout=5.0)
    assert clock.now == count_frames(tmp_path / "slow.mp4") == 12
    stalls = Gated(tmp_path / "stalls.mp4", 30.0, live=True)
    stalls(result(0))
    with pytest.raises(UserError, match=r"stalls\.mp4: writing has stalled"):
        stalls.close(stall_timeout=0.01)
    stalls.gate.set()
    stalls._thread.join(PATIENCE)


def test_what_a_slow_disk_misses_is_made_up_for_by_the_frame_after_it(tmp_path, caplog):
    """Else the recording would play too fast."""
    video = Gated(tmp_path / "out.mp4", 30.0, live=True)
    for number in range(40):
        video(result(number))
    assert 40 - MAX_QUEUED_IMAGES - 1 <= video.dropped <= 40 - MAX_QUEUED_IMAGES
    video.gate.set()
    wait_until(video._queue.empty)
    for number in (40, 41):
        video(result(number))
    video.close()
    assert abs(count_frames(tmp_path / "out.mp4") - 42) <= 1
    assert f"{video.dropped} frames are missing from the video" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_the_thread_of_a_recording_gives_way_to_the_model_but_not_to_all_other_programs(tmp_path):
    """With the lowest priority, a recording beside busy programs would get no frames."""
    own, video = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), Gated(tmp_path / "out.mp4", 30.0, True)
    video.gate.set()
    video(result(0))
    wait_until(lambda: video.written)
    assert os.getpriority(os.PRIO_PROCESS, video._thread.native_id) == max(own, 5)
    video.close()


@pytest.mark.parametrize(("rate", "written"), [(10.0, 90), (30.0, 30), (60.0, 16)])
def test_a_recording_plays_at_the_recorded_speed(rate, written, tmp_path):
    video = Video(tmp_path / "out.mp4", 30.0, live=False)
    for number in range(30):
        video(result(number, rate))
    video.close()
    assert abs(count_frames(tmp_path / "out.mp4") - written) <= 3


def test_a_long_gap_is_cut_out_of_the_recording(tmp_path):
    video = Video(tmp_path / "out.mp4", 30.0, live=False)
    for number in (*range(10), *range(3600 * 30, 3600 * 30 + 10)):
        video(result(number))
    video.close()
    assert count_frames(tmp_path / "out.mp4") == 20


def test_an_unexpected_error_in_a_sink_stops_nothing_else(model, tmp_path, capfd):
    clip = tmp_path / "12:30.mp4"  # FFmpeg would take "12" for a protocol
    video = Video(clip, 30.0, live=False)
    for number in range(60):
        video(result(number))
    video.close()
    with Camera(str(clip)) as camera:
        sinks = [Broken(False, 3), Video(tmp_path / "copy.mp4", 30.0, False)]
        with pytest.raises(UserError, match="broken: TypeError: nobody expected this"):
            loop(camera, Classifier(model), sinks)
    assert "an output failed, the others continue: broken: TypeError: nobody expected this" in capfd.readouterr().err
    assert count_frames(tmp_path / "copy.mp4") == 60


def test_a_second_interrupt_still_finishes_the_recording(model, tmp_path):
    class Interrupted(Broken):
        def __call__(self, result):
            return True

        def close(self):
            raise KeyboardInterrupt

    sinks = [Interrupted(True, 1), Video(tmp_path / "out.mp4", 30.0, True)]
    with Camera("synthetic") as camera, pytest.raises(KeyboardInterrupt):
        loop(camera, Classifier(model), sinks, max_frames=10)
    assert count_frames(tmp_path / "out.mp4") > 0


@pytest.mark.slow
def test_an_mkv_recording_is_readable_after_a_kill(model, tmp_path):
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--headless", "--camera", "synthetic"]
    path = tmp_path / "out.mkv"
    process = subprocess.Popen([*command, "--record", path.name], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 1 << 20)
    finally:
        process.kill()
        process.wait()
    assert count_frames(path) >= 10  # the images are noisy, so a megabyte is a few dozen frames


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_termination_signal_finishes_the_recording(name, model, tmp_path):
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--headless", "--camera", "synthetic"]
    process = subprocess.Popen([*command, "--record", "out.mp4"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (tmp_path / "out.mp4").exists() and (tmp_path / "out.mp4").stat().st_size)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert count_frames(tmp_path / "out.mp4") > 0


def test_an_output_that_can_not_be_written_is_named(monkeypatch):
    full = Path("/dev/full").open("w")  # noqa: SIM115  # closing it fails
    monkeypatch.setattr(sys, "stdout", full)
    sink = LabelChanges(live=True)
    sink(result(0))
    with pytest.raises(OSError, match="No space left") as error:
        sink.close()
    with pytest.raises(OSError, match="No space left"):
        full.close()
    assert error.value.filename == "stdout"


def test_one_uncertain_frame_is_one(tmp_path, capfd):
    sink = UncertainFrames(tmp_path, live=False)
    sink(replace(result(0), raw_prediction=Prediction("a", 0.5, {"a": 0.5, "b": 0.5})))
    sink.close()
    assert "saved 1 uncertain frame; label it with" in capfd.readouterr().err


def test_no_empty_recording_is_left_if_another_sink_cannot_open(model, tmp_path):
    (tmp_path / "file").touch()
    arguments = ["--headless", "--camera", "synthetic", "--record", "out.mp4", "--save-uncertain", "file"]
    assert call_here("live/run.py", "--model", model, *arguments, cwd=tmp_path).returncode == 2
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_closed_stdout_and_stderr_are_no_error(model, tmp_path):
    command = f"{sys.executable} {ROOT}/live/run.py --model {model} --camera synthetic --max-frames 3 --headless --json"
    for closed in (">&-", "2>&-"):
        run = subprocess.run(["bash", "-c", f"{command} {closed}"], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr
        assert b"Traceback" not in run.stderr


def test_predictions_for_a_folder_are_not_averaged(model, tmp_path):
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 255 * (number % 2), np.uint8))
    classifier = Classifier(model)
    with Camera(str(tmp_path)) as camera:
        predictions = list(classifier.predict_stream(camera))
    alone = [classifier.classify(np.full((48, 64, 3), 255 * (number % 2), np.uint8)) for number in range(8)]
    assert predictions == alone


def test_a_newer_model_that_fails_on_a_frame_is_rolled_back(model, tmp_path, capfd):
    """The model accepts the black image that it is tried on, and fails on an image with a value above 9."""
    graph = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 13]>
        dark_only (uint8[1, 8, 8, 3] images) => (float[1, 3] probabilities)
        <int64[1] one = {1}> {
            values = Cast <to = 7> (images)
            largest = ReduceMax <keepdims = 0> (values)
            place = Reshape (largest, one)
            probabilities = Gather (table, place)
        }
    """)
    table = onnx.numpy_helper.from_array(np.full((10, 3), 1 / 3, np.float32), "table")
    graph.graph.initializer.append(table)
    onnx.save(graph, str(tmp_path / "newer.onnx"))
    write_metadata(tmp_path / "newer.onnx", Contract(LABELS, (8, 8)), {})
    newer = [Classifier(tmp_path / "newer.onnx")]
    watcher = SimpleNamespace(take=lambda: newer.pop() if newer else None)
    with Camera("synthetic") as camera:
        sinks = [Video(tmp_path / "out.mp4", 30, True)]
        assert loop(camera, Classifier(model), sinks, max_frames=3, watcher=watcher) == 3
    assert "went back to the old model" in capfd.readouterr().err
    with pytest.raises(UserError, match="out of data bounds"):
        Classifier(tmp_path / "newer.onnx").classify(np.full((8, 8, 3), 200, np.uint8))


@pytest.mark.slow
def test_a_killed_export_keeps_the_old_model_and_the_next_one_succeeds(run_copy, monkeypatch, capfd):
    monkeypatch.chdir(run_copy.parent.parent)
    (run_copy.parent / "latest").symlink_to("copy")
    (run_copy / "model.onnx").unlink()
    watcher, checkpoint = ModelWatcher(None, "cpu", period=0.02), run_copy / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes())
    wait_until(lambda: watcher._export_process)
    watcher._export_process.kill()
    wait_until(lambda: "kept the old model" in capfd.readouterr().err)
    checkpoint.write_bytes(checkpoint.read_bytes())
    wait_until(watcher.take)
    watcher.close()


def test_an_image_that_is_too_large_for_a_video_is_written_smaller(tmp_path):
    video = Video(tmp_path / "out.mp4", 30.0, live=False)
    frame = Frame(np.full((9000, 300, 3), 99, np.uint8), 0, 0.0, 0.0)
    video(replace(result(0), frame=frame))
    video.close()
    with Camera(str(tmp_path / "out.mp4")) as camera:
        assert max(camera.read().shape) == 4096
