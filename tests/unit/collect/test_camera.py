"""Every kind of camera: files, an HTTP stream, the synthetic camera. A fake source only where a test controls time."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from conftest import PATIENCE, Clock, finish, wait_until

from teachcam.collect import gstreamer, hands, live_reader, synthetic
from teachcam.collect.camera import Camera, CameraError, CaptureSettings
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.collect.dataset import list_samples
from teachcam.collect.gstreamer import csi_pipeline
from teachcam.collect.recorder import Recorder
from teachcam.errors import CameraTimeout, UserError
from teachcam.images import decode_image, encode_jpeg, read_image


def numbered(number: int) -> np.ndarray:
    """Return an image whose brightness is its number. Compression does not change that."""
    return np.full((48, 64, 3), 10 * number, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 10)


class FakeSource:
    """A live source that gives the next image when the test sends it."""

    live, fps = True, 30.0

    def __init__(self):
        self.frames: list = [numbered(0)]
        self.step = threading.Semaphore(1)
        self.read_so_far = 0

    def read(self):
        self.step.acquire()
        frame = self.frames.pop(0)
        self.read_so_far += 1
        if isinstance(frame, Exception):
            raise frame
        return frame

    def close(self):
        pass

    def send(self, *frames):
        self.frames.extend(frames)
        for _ in frames:
            self.step.release()
        wait_until(lambda: not self.frames)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The clock of the camera's thread, which goes on when the test says so."""
    clock = Clock()
    monkeypatch.setattr(live_reader, "time", clock)
    return clock


def test_a_live_camera_gives_the_newest_frame_and_counts_dropped_ones(clock):
    source, clock.now = FakeSource(), 100.0
    with Camera("0", opener=lambda *_: source) as camera:
        assert number_of(camera.read()) == 0
        for number in range(1, 8):
            clock.now += 0.5
            source.send(numbered(number))
            wait_until(lambda number=number: camera._reader.newest.number == number)
        clock.now += 2.0
        frame = camera.read_frame()
        assert (number_of(frame.image), frame.number, camera.dropped) == (7, 7, 6)
        assert (frame.time, frame.captured) == (3.5, 103.5)


def test_an_error_in_the_grabber_thread_is_raised_by_the_next_read():
    source = FakeSource()
    with Camera("0", opener=lambda *_: source) as camera:
        camera.read()
        source.send(RuntimeError("the driver fell over"))
        with pytest.raises(RuntimeError, match="fell over"):
            camera.read()


def test_a_camera_that_sends_nothing_is_an_error_after_the_timeout():
    blocked = threading.Event()

    def opener(*_):
        blocked.wait()
        raise CameraError("gone")

    with pytest.raises(CameraError, match=r"sent nothing for 0\.2 s"):
        Camera("0", opener=opener, timeout=0.2)
    blocked.set()


def test_a_lost_camera_is_opened_again_and_each_reason_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(live_reader, "LONGEST_PAUSE", 0.01)
    first, second = FakeSource(), FakeSource()
    sources = [first, CameraError("off"), CameraError("off"), CameraError("wrong password"), CameraError("off"), second]

    def opener(*_):
        source = sources.pop(0)
        if isinstance(source, Exception):
            raise source
        return source

    with Camera("0", opener=opener) as camera:
        assert camera.read_frame().number == 0
        first.send(None)
        frame = camera.read_frame()
        assert (number_of(frame.image), frame.number) == (0, 1)
    assert [record.message for record in caplog.records] == [
        "camera 0: lost, reconnecting",
        "not back yet: off",
        "not back yet: wrong password",
        "camera 0: back",
    ]


def test_observers_get_every_image_even_an_equal_one():
    seen = []
    source = FakeSource()
    with Camera("0", opener=lambda *_: source) as camera:
        camera.observe(lambda change: seen.append(number_of(change.new)), "value")
        camera.running = True
        wait_until(lambda: seen == [0])
        source.send(numbered(5))
        wait_until(lambda: seen == [0, 5])
        camera.value = camera.value  # an equal image notifies, too: pixels are not compared
        assert seen == [0, 5, 5]


def test_setting_running_again_and_again_leaves_one_publisher_thread():
    with Camera("synthetic:palm?size=64x48") as camera:
        for _ in range(5):
            camera.running = True
            camera.running = False
        camera.running = True
        wait_until(lambda: sum("publish" in thread.name for thread in threading.enumerate()) == 1)


def test_a_video_file_gives_every_frame_in_order(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        writer.write(numbered(number))
    writer.release()
    with Camera(str(path)) as camera:
        frames = list(camera)
        assert camera.read() is None
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert [frame.number for frame in frames] == list(range(20))
    assert frames[10].time == pytest.approx(1.0)


def test_an_image_folder_skips_and_logs_unreadable_files(tmp_path, caplog):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with Camera(str(tmp_path)) as camera:
        assert [number_of(frame.image) for frame in camera] == [0, 2]
    assert "1.png" in caplog.text


class MjpegServer:
    """An HTTP camera that sends MJPEG at about 30 FPS. An image's brightness is its number. `pull` disconnects it."""

    def __init__(self, port: int = 0):
        pulled = self._pulled = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for number in range(100_000):
                    jpeg = encode_jpeg(numbered(1 + number % 20))
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                    except OSError:
                        return
                    if pulled.wait(1 / 30):
                        return

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/stream.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def pull(self):
        self._pulled.set()
        self._server.shutdown()
        self._server.server_close()


def test_http_camera():
    server, numbers = MjpegServer(), []
    with Camera(server.url) as camera:
        camera.on_each_frame(lambda frame: numbers.append(number_of(frame.image)))
        wait_until(lambda: len(numbers) >= 10)
        assert 1 <= number_of(camera.read()) <= 20
    server.pull()
    assert all(later == earlier % 20 + 1 for earlier, later in itertools.pairwise(numbers))


def test_each_frame_of_a_file_is_passed_on_while_it_is_read(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode_jpeg(numbered(number)))
    with Camera(str(tmp_path)) as camera:
        passed = []
        camera.on_each_frame(lambda frame: passed.append(number_of(frame.image)))
        assert [number_of(camera.read()), number_of(camera.read())] == passed == [0, 1]
        camera.on_each_frame(None)
        assert number_of(camera.read()) == 2
        assert passed == [0, 1]


def test_recording_goes_on_when_an_http_camera_comes_back(tmp_path, caplog):
    server = MjpegServer()
    with Camera(server.url) as camera, Recorder(camera, tmp_path, "x", fps=0) as recorder:
        recorder.start()
        wait_until(lambda: recorder.saved["x"] > 5)
        server.pull()
        wait_until(lambda: camera.reconnecting)
        before = recorder.saved["x"]
        server = MjpegServer(server.port)
        wait_until(lambda: recorder.saved["x"] > before + 10)
        assert not camera.reconnecting
    server.pull()
    assert f"camera {server.url}: lost, reconnecting" in caplog.text
    assert f"camera {server.url}: back" in caplog.text
    for sample in list_samples(tmp_path):
        assert read_image(sample.path).shape == (48, 64, 3)


def test_a_camera_that_hangs_is_opened_again(clock):
    hung, fresh = FakeSource(), FakeSource()
    sources = [hung, fresh]
    with Camera("0", opener=lambda *_: sources.pop(0), stall=5.0) as camera:
        assert number_of(camera.read()) == 0  # after that, the read of `hung` does not return
        fresh.frames[0] = numbered(9)
        clock.now += 5.1
        assert number_of(finish(camera.read)) == 9
        hung.frames.append(numbered(3))  # it returns after all, and is ignored
        hung.step.release()
        fresh.send(numbered(10))
        assert number_of(camera.read()) == 10


def test_a_camera_that_hangs_is_opened_again_also_when_each_read_waits_for_less_than_that():
    hung, fresh = FakeSource(), FakeSource()
    fresh.frames[0] = numbered(9)
    sources = [hung, fresh]
    with Camera("0", opener=lambda *_: sources.pop(0), stall=0.3) as camera:
        camera.read()

        def is_back() -> bool:
            try:
                return number_of(camera.read_frame(wait=0.05).image) == 9
            except CameraTimeout:
                return False

        wait_until(is_back)
        hung.send(None)  # so that its thread ends


def test_a_read_ends_after_its_time_and_when_the_camera_is_closed():
    source = FakeSource()
    camera = Camera("0", opener=lambda *_: source)
    camera.read()
    with pytest.raises(CameraTimeout):
        camera.read_frame(wait=0.05)
    threading.Timer(0.1, camera.close).start()
    with pytest.raises(CameraError, match="is closed"):
        camera.read()
    source.send(numbered(1))


@pytest.mark.parametrize(("flip", "corner"), [("horizontal", (0, -1)), ("vertical", (-1, 0)), ("180", (-1, -1))])
def test_images_can_be_flipped(tmp_path, flip, corner):
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0] = 255
    cv2.imwrite(str(tmp_path / "x.png"), image)
    with Camera(str(tmp_path / "x.png"), flip=flip) as camera:
        assert (camera.read()[corner] == 255).all()


def test_an_unknown_flip_is_an_error():
    with pytest.raises(CameraError, match=r"flip 'upside-down' is unknown: use one of horizontal, vertical, 180"):
        Camera("synthetic", flip="upside-down")


def test_the_camera_options_of_a_command():
    parser = argparse.ArgumentParser()
    add_camera_arguments(parser)
    arguments = ["--camera", "synthetic:palm?seed=1", "--width", "320", "--height", "200", "--camera-fps", "60"]

    def drawn(number: int) -> np.ndarray:
        return next(itertools.islice(hands.draw_session(np.random.default_rng(1), "palm", 60, 320, 200), number, None))

    with open_camera(parser.parse_args(arguments)) as camera:
        upright = camera.read_frame()
        assert (upright.image.shape, camera.fps) == ((200, 320, 3), 60)
        assert camera.metadata == {"camera": "synthetic:palm?seed=1", "camera_fps": 60}
    with open_camera(parser.parse_args([*arguments, "--flip", "180"])) as camera:
        flipped = camera.read_frame()
        assert camera.metadata["flip"] == "180"
    assert (upright.image == drawn(upright.number)).all()
    assert (flipped.image == drawn(flipped.number)[::-1, ::-1]).all()


def test_size_and_rate_are_requested_from_the_camera():
    with Camera("synthetic:palm", settings=CaptureSettings(width=320, height=200, fps=60)) as camera:
        assert camera.read().shape == (200, 320, 3)
        assert camera.fps == 60


def test_the_csi_pipeline_is_nvidias_and_keeps_only_the_newest_frame():
    pipeline = csi_pipeline("csi:1", CaptureSettings(1920, 1080, 60))
    assert pipeline.startswith(
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1"
    )
    assert pipeline.endswith("appsink drop=true max-buffers=1 sync=false")
    with pytest.raises(CameraError, match="there is no CSI camera"):
        csi_pipeline("csi:front", CaptureSettings())
    assert "nvvidconv flip-method=2 !" in csi_pipeline("csi:0", CaptureSettings(flip="180"))


@pytest.mark.parametrize("source", ["csi:0", "gst:videotestsrc ! appsink"])
def test_without_gstreamer_an_error_says_what_to_install(source, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gstreamer, "opencv_has_gstreamer", lambda: False)
    with pytest.raises(CameraError, match=r"need gst-launch-1\.0: sudo apt install gstreamer1\.0-tools"):
        Camera(source)


def test_frame_numbers_can_be_read_after_jpeg_compression():
    camera = synthetic.SyntheticCamera("palm?seed=1&numbered=1&fps=1000")
    for number in range(20):
        jpeg = encode_jpeg(camera.read(), quality=60)
        assert synthetic.read_number(decode_image(jpeg)) == number
    assert synthetic.read_number(synthetic._draw_number(np.zeros((64, 320, 3), np.uint8), 54321)) == 54321


def test_a_synthetic_session_depends_on_the_seed_only():
    first, again, other = (synthetic.render("thumbs_up", seed, 3, 320, 240) for seed in (1, 1, 2))
    assert (first == again).all()
    assert np.abs(first.astype(int) - other).mean() > 20
    assert np.abs(first[0].astype(int) - first[2]).mean() > 0.5


def test_the_synthetic_camera_shows_each_label_in_turn():
    with Camera("synthetic?seed=4&fps=30&size=64x48") as camera:
        frame = camera.read_frame()
    assert frame.image.shape == (48, 64, 3)
    turns = [hands.label_at(number, fps=30) for number in range(0, 180, 45)]
    assert turns == list(hands.LABELS)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("99", "camera 99 does not open"),
        ("no/such/file.mp4", "no camera, file or folder"),
        ("http://127.0.0.1:9/", "no stream at"),
        ("synthetic:elbow", "no label 'elbow'"),
        ("synthetic?sede=1", "expected seed=N"),
        ("synthetic?fps=0", "expected seed=N"),
        ("", "no camera, file or folder"),
        ("99999999999999", "no camera, file or folder"),
    ],
)
def test_a_missing_source_is_an_error(source, words):
    with pytest.raises(UserError, match=words):
        Camera(source)


def test_an_unreadable_file_is_an_error(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(CameraError, match="not a readable video"):
        Camera(str(tmp_path / "clip.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CameraError, match="no readable image"):
        Camera(str(tmp_path / "empty"))


NEVER_CLOSED = """
import os, time, cv2, numpy as np
from teachcam.collect.camera import Camera

class Source:
    live, fps = True, 0.0
    def read(self):
        return cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 0)
    def close(self):
        pass

class SlowToEnd:  # so that Python's end takes longer than an image
    def __del__(self, sleep=time.sleep, write=os.write):
        sleep(0.3)
        write(1, b"whole")

slow, camera = SlowToEnd(), Camera("0", opener=lambda *_: Source())
camera.running = {running}
camera.read()
"""


@pytest.mark.parametrize("running", [False, True])
def test_a_camera_that_is_never_closed_does_not_abort_python_at_its_end(running):
    code = NEVER_CLOSED.replace("{running}", str(running))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stdout, result.stderr) == (0, "whole", "")


def test_a_camera_that_nobody_holds_is_released():
    source, released = FakeSource(), threading.Event()
    source.close = released.set
    camera = Camera("0", opener=lambda *_: source)
    camera.read()
    source.send(numbered(1))
    source.step.release()
    source.frames.append(numbered(2))
    del camera
    assert released.wait(PATIENCE)
