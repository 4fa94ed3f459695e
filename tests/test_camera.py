"""Cameras of every kind: real files, a real HTTP stream, the synthetic one; a fake only where time must be ours."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from collect import synthetic
from collect.camera import Camera, CameraError
from collect.cli import UserError


def numbered(number: int) -> np.ndarray:
    """A frame whose brightness tells its number, robust to compression."""
    return np.full((48, 64, 3), 10 * number, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 10)


class FakeSource:
    """A live source that gives a new frame whenever the test says so."""

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


def wait_until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_live_camera_hands_out_the_newest_frame_and_counts_the_rest():
    source = FakeSource()
    with Camera("0", opener=lambda _: source) as camera:
        assert number_of(camera.read()) == 0
        source.send(*(numbered(number) for number in range(1, 8)))
        wait_until(lambda: camera._newest.number == 7)
        frame = camera.read_frame()
        assert (number_of(frame.image), frame.number, camera.dropped) == (7, 7, 6)


def test_a_grabber_that_dies_surfaces_at_the_next_read():
    source = FakeSource()
    with Camera("0", opener=lambda _: source) as camera:
        camera.read()
        source.send(RuntimeError("the driver fell over"))
        with pytest.raises(RuntimeError, match="fell over"):
            camera.read()


def test_a_camera_that_never_answers_is_an_error_in_time():
    blocked = threading.Event()

    def opener(_):
        blocked.wait()
        raise CameraError("gone")

    with pytest.raises(CameraError, match=r"sent nothing for 0\.2 s"):
        Camera("0", opener=opener, timeout=0.2)
    blocked.set()


def test_a_lost_camera_is_opened_again(capsys):
    first, second = FakeSource(), FakeSource()
    sources = [first, CameraError("still off"), second]

    def opener(_):
        source = sources.pop(0)
        if isinstance(source, Exception):
            raise source
        return source

    with Camera("0", opener=opener) as camera:
        assert camera.read_frame().number == 0
        first.send(None)
        frame = camera.read_frame()
        assert (number_of(frame.image), frame.number) == (0, 1)
    assert "lost" in capsys.readouterr().err


def test_observers_get_every_new_value_and_reading_twice_is_no_comparison():
    seen = []
    source = FakeSource()
    with Camera("0", opener=lambda _: source) as camera:
        camera.observe(lambda change: seen.append(number_of(change.new)), "value")
        camera.running = True
        wait_until(lambda: seen == [0])
        source.send(numbered(5))
        wait_until(lambda: seen == [0, 5])
        camera.value = camera.value  # an equal frame notifies as well: nothing compares pixels
        assert seen == [0, 5, 5]


def test_video_file_gives_every_frame_in_order(tmp_path):
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


def test_image_folder_names_and_skips_what_is_broken(tmp_path, capsys):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with Camera(str(tmp_path)) as camera:
        assert [number_of(frame.image) for frame in camera] == [0, 2]
    assert "1.png" in capsys.readouterr().err


@pytest.fixture
def mjpeg_server():
    """A real HTTP camera: MJPEG at about 30 FPS, the frame's number in its brightness."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for number in range(10_000):
                    jpeg = cv2.imencode(".jpg", numbered(1 + number % 20))[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    time.sleep(1 / 30)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    server.shutdown()
    server.server_close()


def test_http_camera(mjpeg_server):
    with Camera(mjpeg_server) as camera:
        numbers = [number_of(camera.read()) for _ in range(10)]
    assert len(set(numbers)) > 5
    assert all(1 <= number <= 20 for number in numbers)


def test_synthetic_is_the_same_for_a_seed_and_another_room_for_another():
    first, again, other = (synthetic.render("thumbs_up", seed, 3, 320, 240) for seed in (1, 1, 2))
    assert (first == again).all()
    assert np.abs(first.astype(int) - other).mean() > 20
    assert np.abs(first[0].astype(int) - first[2]).mean() > 0.5


def test_synthetic_shows_each_label_in_turn():
    with Camera("synthetic?seed=4&fps=30&size=64x48") as camera:
        frame = camera.read_frame()
    assert frame.image.shape == (48, 64, 3)
    turns = [synthetic.label_at(number, fps=30) for number in range(0, 180, 45)]
    assert turns == list(synthetic.LABELS)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("99", "camera 99 does not open"),
        ("no/such/file.mp4", "no camera, file or folder"),
        ("http://127.0.0.1:9/", "no stream at"),
        ("synthetic:elbow", "no label 'elbow'"),
        ("synthetic?sede=1", "expected seed=N"),
        ("synthetic?fps=0", "expected seed=N"),
    ],
)
def test_a_source_that_is_not_there_says_so(source, words):
    with pytest.raises(UserError, match=words):
        Camera(source)


def test_an_unreadable_file_says_so(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(CameraError, match="not a video that can be read"):
        Camera(str(tmp_path / "clip.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CameraError, match="no image that can be read"):
        Camera(str(tmp_path / "empty"))
