"""Test the live loop with a camera that breaks, sinks that fail or hang, and models that are replaced."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import LABELS, PATIENCE, ROOT, Clock, call, finish, wait_until

from teachcam import ending
from teachcam.collect import live_reader
from teachcam.collect.camera import Camera
from teachcam.collect.dataset import list_samples
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.errors import CameraError, ModelError, UserError
from teachcam.files import write_atomic
from teachcam.live import loop as loop_module
from teachcam.live.active_model import ActiveModel
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.loop_stats import Latency, LoopStats
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.occlusion import heat_map
from teachcam.live.prediction import Prediction
from teachcam.live.sinks import video as video_module
from teachcam.live.sinks.base import ThreadedSink
from teachcam.live.sinks.overlay import annotate
from teachcam.live.sinks.text import JsonLines, LabelChanges
from teachcam.live.sinks.video import Video

IMAGES = render("palm", 1, 30, 320, 240)


class Source:
    """A live source of 200 images per second. It is gone as long as `broken` is set."""

    live, fps = True, 200.0
    broken = threading.Event()

    def read(self) -> np.ndarray | None:
        time.sleep(0.005)
        if self.broken.is_set():
            return None
        return IMAGES[time.monotonic_ns() % len(IMAGES)]

    def close(self):
        pass


class ResultList(list):
    """A sink that keeps every result."""

    closed = False

    def __call__(self, result) -> bool:
        self.append(result)
        return True

    def close(self):
        self.closed = True


@pytest.fixture
def camera():
    def open_source(*_) -> Source:
        if Source.broken.is_set():
            raise CameraError("gone")
        return Source()

    with Camera("0", opener=open_source) as camera:
        yield camera


@pytest.fixture(scope="module")
def model(trained):
    return trained / "model.onnx"


def test_the_loop_waits_for_a_camera_that_reconnects(camera, model):
    results, stop = ResultList(), threading.Event()
    thread = threading.Thread(target=loop, args=(camera, Classifier(model), [results]), kwargs={"stop": stop})
    thread.start()
    wait_until(lambda: len(results) > 5)
    Source.broken.set()
    wait_until(lambda: camera.reconnecting)
    before = len(results)
    Source.broken.clear()
    wait_until(lambda: not camera.reconnecting and len(results) > before + 5)
    stop.set()
    thread.join(PATIENCE)
    assert results.closed


def test_a_slow_model_gets_the_newest_frame_and_its_age_is_told(monkeypatch):
    """While the model looks at one frame, five others come. No queue grows: it gets the last of them."""
    clock, steps = Clock(), threading.Semaphore(1)
    for module in (live_reader, loop_module):
        monkeypatch.setattr(module, "time", clock)
    source = SimpleNamespace(live=True, fps=30.0, read=lambda: steps.acquire() and IMAGES[0], close=lambda: None)

    class Slow:
        provider, contract = "cpu", SimpleNamespace(labels=("a",), unknown_threshold=0.0)

        def predict_probabilities(self, *_):
            pytest.fail("the loop classifies")

        def classify(self, image: np.ndarray) -> Prediction:
            number = camera._reader.newest.number
            for one in range(number + 1, number + 6):
                clock.now += 0.25
                steps.release()
                wait_until(lambda one=one: camera._reader.newest.number == one)
            clock.now += 0.5
            return Prediction("a", 1.0, {"a": 1.0})

    results = ResultList()
    with Camera("0", opener=lambda *_: source) as camera:
        loop(camera, Slow(), [results], max_frames=4)
        steps.release()
    assert [result.frame.number for result in results] == [0, 5, 10, 15]
    assert [result.latency for result in results] == [1.75] * 4
    assert [result.age for result in results] == [1.75, 2.25, 2.25, 2.25]  # it was captured before the last ended


def test_a_failed_sink_is_closed_and_its_error_is_raised_at_the_end(camera, model, capfd):
    class Broken(ResultList):
        def __call__(self, result):
            if len(self) == 3:
                raise OSError(28, "No space left on device")
            return super().__call__(result)

    results = ResultList()
    with pytest.raises(OSError, match="No space"):
        loop(camera, Classifier(model), [Broken(), results], max_frames=10)
    assert len(results) == 10
    assert "an output failed, the others continue: [Errno 28] No space left on device" in capfd.readouterr().err
    with pytest.raises(OSError, match="No space"):
        loop(camera, Classifier(model), [Broken()], max_frames=10)


@pytest.mark.parametrize("kind", [JsonLines, LabelChanges])
def test_a_reader_that_never_reads_does_not_stop_a_live_loop(kind, camera, model, monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        sink, results = kind(live=True), ResultList()
        sink._queue.maxsize = 20
        os.set_blocking(writer, True)
        stdout.write("x" * 65536)  # the pipe is full, so the next write blocks forever
        stdout.flush()
        close, sink.close = sink.close, lambda: close(stall_timeout=0.2)
        with pytest.raises(UserError, match="stdout: writing has stalled"):
            finish(partial(loop, camera, Classifier(model), [sink, results], max_frames=100))
        assert len(results) == 100
        assert kind is LabelChanges or sink.dropped >= 70
        os.close(reader)
        sink._thread.join(PATIENCE)
        assert not sink._thread.is_alive()
        with contextlib.suppress(BrokenPipeError):
            stdout.close()


def test_a_closed_pipe_does_not_stop_the_recording(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for image in IMAGES:
        writer.write(image)
    writer.release()
    reader, closed_pipe = os.pipe()
    os.close(reader)
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--camera", "clip.avi", "--headless"]
    with os.fdopen(closed_pipe, "w") as stdout:
        result = subprocess.run(
            [*command, "--json", "--record", "out.mp4"],
            cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "an output failed, the others continue: [Errno 32] Broken pipe" in result.stderr
    assert "30 frames" in result.stderr
    assert int(cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 30


def test_a_full_disk_ends_only_the_recording_and_leaves_a_playable_file(camera, model, tmp_path, monkeypatch, capfd):
    """The disk is full when it is looked at for the fifth time: each frame is a second later for the recording."""
    free = [10**9] * 4
    monkeypatch.setattr(video_module, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    disk = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=free.pop() if free else 0))
    monkeypatch.setattr(video_module, "shutil", disk)
    video = Video(tmp_path / "out.mp4", 30, live=True)

    class Results(ResultList):
        def __call__(self, result) -> bool:
            if len(self) == 20:  # of which the recording has at least those that its queue holds
                wait_until(lambda: video._error is not None or not video._thread.is_alive())  # or the loop has it
            return super().__call__(result)

    results = Results()
    with pytest.raises(UserError, match="the recording ended here"):
        loop(camera, Classifier(model), [video, results], max_frames=60)
    assert len(results) == 60
    assert "free, so the recording ended here" in capfd.readouterr().err
    video._thread.join(PATIENCE)
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[0]


def test_a_newer_model_replaces_the_old_one_and_a_broken_one_does_not(camera, run_copy, capfd):
    path = run_copy / "model.onnx"
    content = path.read_bytes()
    results, stop, watcher = ResultList(), threading.Event(), ModelWatcher(path, "cpu", period=0.02)
    settings = {"watcher": watcher, "stop": stop}
    thread = threading.Thread(target=loop, args=(camera, Classifier(path), [results]), kwargs=settings)
    thread.start()
    wait_until(lambda: results)
    write_atomic(path, content.replace(b'"palm"', b'"hand"'))
    wait_until(lambda: results[-1].labels[0] == "hand")
    write_atomic(path, content[:5000])
    wait_until(lambda: "kept the old model" in capfd.readouterr().err)
    write_atomic(path, content.replace(b'"palm"', b'"fist"'))
    wait_until(lambda: results[-1].labels[0] == "fist")
    stop.set()
    thread.join(PATIENCE)
    watcher.close()
    for result in results:
        assert tuple(result.prediction.probabilities) == tuple(result.raw_prediction.probabilities) == result.labels
        assert result.prediction.label in result.labels
    assert [result.labels[0] for result in results] == sorted(
        (result.labels[0] for result in results), key=["palm", "hand", "fist"].index
    )


@pytest.mark.slow
def test_a_newer_checkpoint_is_exported_and_loaded(camera, run_copy, monkeypatch):
    monkeypatch.chdir(run_copy.parent.parent)
    (run_copy.parent.parent / "train.py").touch()  # a file of the user's, which must not shadow the package
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

    wait_until(taken)
    watcher.close()
    assert newer.path.stat().st_mtime_ns > written


@pytest.mark.slow
def test_json_goes_to_stdout_while_a_model_is_loaded(run_copy, tmp_path):
    """What ONNX Runtime prints at loading is kept from stdout. The JSON lines must still go there."""
    model = run_copy / "model.onnx"
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--camera", "synthetic", "--watch"]
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    with stdout.open("w") as out, stderr.open("w") as err:
        process = subprocess.Popen([*command, "--headless", "--json"], cwd=tmp_path, stdout=out, stderr=err)
    wait_until(lambda: "palm" in stderr.read_text())
    for count in (1, 2, 3):
        write_atomic(model, model.read_bytes())
        wait_until(lambda count=count: stderr.read_text().count("took the new model") == count)
    process.terminate()
    assert process.wait(PATIENCE) == 130
    predictions = [json.loads(line) for line in stdout.read_text().splitlines()]
    assert {prediction["label"] for prediction in predictions} <= set(LABELS)
    assert f"{len(predictions)} frames, " in stderr.read_text()
    assert "{" not in stderr.read_text()


def test_predict_stream_classifies_every_image_of_a_folder(model, tmp_path):
    for index, image in enumerate(IMAGES[:5]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    classifier = Classifier(model)
    with Camera(tmp_path) as camera:
        predictions = list(classifier.predict_stream(camera, smoothing=0))
    assert predictions == [classifier.classify(image) for image in IMAGES[:5]]


def test_the_heat_map_shows_what_supports_the_prediction(model):
    """This model looks at one corner only, so hiding anything else changes nothing."""

    class Corner:
        contract = Contract(("light", "dark"), (224, 224))

        def predict_probabilities(self, model_input):
            light = float(model_input[:60, :60].mean()) / 255
            return np.array([light, 1 - light], np.float32)

    image = np.zeros((240, 320, 3), np.uint8)
    image[:64, :85] = 255
    heat = heat_map(Corner(), image)
    assert heat.shape == (6, 6)
    assert heat.max() == heat[:2, :2].max() == 1
    assert heat[3:, 3:].max() == 0
    assert heat_map(Corner(), np.full_like(image, 255)).max() == 0  # white hidden behind white changes nothing
    assert heat_map(Classifier(model), IMAGES[0]).min() >= 0


@pytest.mark.display
def test_keys_in_the_window(model, tmp_path, display):
    command = [sys.executable, str(ROOT / "live/run.py"), "--model", str(model), "--camera", "synthetic?seed=5"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    display.wait_for_window("teachcam")
    for key, saved in (("1", 1), ("m", 1), ("2", 2), ("1", 3), ("h", 3), ("q", 3)):
        display.press(key, pictures=0 if key == "q" else 3)
        wait_until(lambda saved=saved: len(list((tmp_path / "data").glob("*/*.jpg"))) == saved)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    items = list_samples(tmp_path / "data")
    assert sorted(item.label for item in items) == ["palm", "palm", "thumbs_down"]
    assert len({item.session for item in items}) == 2


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_2(model, tmp_path):
    for arguments, words in (
        (["--smoothing", "-1"], "--smoothing"),
        (["--min-hold", "nan"], "--min-hold"),
        (["--http", "no:port:here"], "--http"),
        (["--on", "palm"], "LABEL=COMMAND"),
        (["--record", "x.avi"], "must end in .mp4"),
    ):
        result = call("live/run.py", "--model", model, "--camera", "synthetic", "--headless", *arguments, cwd=tmp_path)
        assert result.returncode == 2
        assert words in result.stderr.strip().splitlines()[-1]
        assert "Traceback" not in result.stderr


def test_every_sink_that_fails_is_named(camera, model, capfd):
    class Refuses(ResultList):
        def __init__(self, reason):
            super().__init__()
            self.reason = reason

        def __call__(self, result):
            raise UserError(self.reason)

    with pytest.raises(UserError, match="first"):
        loop(camera, Classifier(model), [Refuses("first"), Refuses("second"), ResultList()], max_frames=3)
    messages = capfd.readouterr().err
    assert "others continue: first" in messages
    assert "others continue: second" in messages


def test_a_user_error_of_a_sink_does_not_end_the_loop(camera, model):
    class Refuses(ResultList):
        def __call__(self, result):
            raise UserError("no")

    results = ResultList()
    with pytest.raises(UserError, match="no"):
        loop(camera, Classifier(model), [Refuses(), results], max_frames=3)
    assert len(results) == 3


@pytest.mark.parametrize(
    "error", [OSError(5, "I/O"), UserError("x"), ValueError("x"), MemoryError(), SystemExit(3), KeyboardInterrupt()]
)
@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_a_sinks_thread_that_dies_of_anything_is_an_error(camera, model, error, moment):
    class Dies(ThreadedSink):
        def _name(self):
            return "dies"

        def _prepare(self, result):
            return result

        def _write(self, entry):
            if self.written == {"start": 0, "middle": 3}.get(moment):
                raise error

        def _finish(self):
            if moment == "end":
                raise error

    results = ResultList()
    with pytest.raises((UserError, OSError)):
        loop(camera, Classifier(model), [Dies(True, 8), results], max_frames=8)
    assert len(results) == 8


def test_sinks_close_at_the_same_time(camera, model):
    closed = threading.Event()

    class First(ResultList):
        def close(self):
            assert closed.wait(30)

    class Second(ResultList):
        def close(self):
            closed.set()

    assert loop(camera, Classifier(model), [First(), Second()], max_frames=1) == 1


def test_after_a_signal_a_sink_that_does_not_close_is_left_behind(camera, model, monkeypatch, capfd):
    class NeverCloses(ResultList):
        def close(self):
            threading.Event().wait()

    closes = ResultList()
    monkeypatch.setattr(ending, "was_asked", lambda seconds=0.0: True)
    with pytest.raises(UserError, match="NeverCloses did not close in time"):
        loop(camera, Classifier(model), [NeverCloses(), closes], max_frames=1)
    assert closes.closed
    assert "an output failed: NeverCloses did not close in time" in capfd.readouterr().err


def test_a_signal_ends_the_wait_for_an_output_that_takes_nothing(monkeypatch):
    """The results of a file wait for the output, and are not dropped."""

    class Stuck(ThreadedSink):
        def _prepare(self, result):
            return result

        def _write(self, entry):
            threading.Event().wait()

    def check() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ending, "check", check)
    sink = Stuck(live=False, max_queued=1)
    with pytest.raises(KeyboardInterrupt):
        list(map(sink, range(3)))


def test_a_tiny_image_is_enlarged_before_text_is_drawn_on_it():
    annotated = annotate(np.zeros((28, 20, 3), np.uint8), Prediction("palm", 0.5, {"palm": 0.5, "none": 0.5}), "30 FPS")
    assert annotated.shape == (252, 180, 3)
    assert annotated.max() == 255


def test_percentiles_are_in_milliseconds_and_of_the_latest_times_only():
    latency = Latency(max_count=100)
    for number in range(1000):
        latency.add(number / 1000)
    assert latency.percentile(0) == pytest.approx(900)
    assert latency.percentile(50) == pytest.approx(949.5)
    assert np.isnan(Latency().percentile(50))


def test_loop_stats_measure_frames_per_second(caplog):
    stats = LoopStats()
    stats.log(0, "cpu")
    assert "no frame was classified" in caplog.text
    stats.add(latency=0.004, age=0.010, now=100.0)
    assert stats.fps == 0.0
    for index in range(1, 10):
        stats.add(latency=0.004, age=0.010, now=100 + index / 20)
    assert (stats.num_frames, stats.fps) == (10, pytest.approx(20.0))
    stats.log(3, "cpu")
    line = "10 frames, 3 dropped, on cpu; latency p50 4.0 ms, p99 4.0 ms; frame age p50 10.0 ms, p99 10.0 ms"
    assert line in caplog.text


def test_the_active_model_goes_back_once_and_then_raises(model):
    first, second = Classifier(model), Classifier(model)
    active = ActiveModel(first, smoothing=0.0, min_hold=0.0)
    with pytest.raises(ModelError, match="broken"):
        active.roll_back(ModelError("broken"))
    active.swap(second)
    assert active.classifier is second
    active.roll_back(ModelError("broken"))
    assert active.classifier is first
    with pytest.raises(ModelError, match="broken"):
        active.roll_back(ModelError("broken"))
