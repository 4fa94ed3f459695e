"""GStreamer cameras: through gst-launch-1.0, with any OpenCV, and through an OpenCV that has GStreamer (Debian's)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import psutil
import pytest
from conftest import PATIENCE, wait_until

from teachcam.collect import gstreamer
from teachcam.collect.camera import Camera, CameraError, CaptureSettings
from teachcam.collect.gstreamer import PipelineProcess, has_gstreamer, opencv_has_gstreamer

pytestmark = pytest.mark.skipif(not has_gstreamer(), reason="there is no GStreamer")
WAYS = [
    "program",
    pytest.param("opencv", marks=pytest.mark.skipif(not opencv_has_gstreamer(), reason="OpenCV has none")),
]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch) -> str:
    """Either way to run a pipeline."""
    if request.param == "opencv":
        monkeypatch.setattr(gstreamer, "_has_program", lambda: False)
    elif not gstreamer._has_program():
        pytest.skip("gst-launch-1.0 is not installed")
    return request.param


@pytest.fixture
def program() -> None:
    if not gstreamer._has_program():
        pytest.skip("gst-launch-1.0 is not installed")


def pipeline(caps: str = "width=640,height=480", more: str = "") -> str:
    return f"gst:videotestsrc is-live=true {more} ! video/x-raw,{caps} ! appsink drop=true max-buffers=1 sync=false"


def programs(parent: int) -> list[psutil.Process]:
    """Return the processes of gst-launch-1.0 that a process has started."""
    return [child for child in psutil.Process(parent).children() if child.name() == "gst-launch-1.0"]


def test_a_pipeline_gives_frames_at_its_rate(way):
    with Camera(pipeline()) as camera:
        frames = [camera.read_frame() for _ in range(10)]
        assert camera.fps == 30
    assert frames[0].image.shape == (480, 640, 3)
    assert cv2.norm(frames[0].image) > 0


def test_a_pipeline_that_does_not_start_says_so(way):
    with pytest.raises(CameraError, match="does not start"):
        Camera("gst:nosuchelement ! appsink")
    with pytest.raises(CameraError, match=r"does not start: nvarguscamerasrc|csi:0 sent nothing"):
        Camera("csi:0", timeout=2)  # some versions of OpenCV start a pipeline that lacks its first element


@pytest.mark.parametrize("form", ["GRAY8", "BGRx", "BGRA", "GRAY16_LE"])
def test_every_format_becomes_bgr(way, form):
    with Camera(pipeline(f"width=64,height=48,format={form}")) as camera:
        image = camera.read()
    assert (image.shape, image.dtype.name) == ((48, 64, 3), "uint8")
    assert 20 < image.mean() < 235


def test_a_width_that_is_no_multiple_of_four(program):
    with Camera(pipeline("width=62,height=41", "pattern=red")) as camera:
        assert (camera.read() == (0, 0, 255)).all()


def test_messages_name_the_reason_and_no_password(program):
    with pytest.raises(CameraError, match=r'no element "nosuchelement"'):
        Camera("gst:nosuchelement ! appsink")
    with pytest.raises(CameraError, match="No closing quotation"):
        Camera('gst:videotestsrc name="x')
    with pytest.raises(CameraError) as error:
        Camera("gst:rtspsrc location=rtsp://user:secret@127.0.0.1:1/ ! decodebin", timeout=15)
    assert "secret" not in str(error.value)


def test_size_rate_and_flip(program):
    settings = CaptureSettings(320, 200, 60)
    with Camera("gst:videotestsrc is-live=true pattern=smpte", settings=settings, flip="horizontal") as camera:
        flipped = camera.read()
        assert (flipped.shape, camera.fps) == ((200, 320, 3), 60)
    with Camera("gst:videotestsrc is-live=true pattern=smpte", settings=settings) as camera:
        assert np.abs(camera.read()[:100, ::-1].astype(int) - flipped[:100]).max() < 8


@pytest.mark.slow
def test_no_image_is_torn_and_each_is_new(program):
    """The picture of each frame moves by 8 pixels: all its rows must agree, and its place tells its age."""
    with Camera(pipeline("width=1280,height=720,framerate=30/1", "horizontal-speed=8")) as camera:
        frames = [camera.read_frame() for _ in range(150)]
    for frame in frames:
        rows = frame.image[:480].astype(int)  # below are other bars
        assert np.abs(rows - rows[:1]).max() < 8
    row = frames[0].image[0].astype(int)
    turned = [np.roll(row, -8 * step, axis=0) for step in range(160)]
    steps = [int(np.argmin([np.abs(other - frame.image[0]).sum() for other in turned])) for frame in frames]
    steps = np.diff(steps) % 160
    assert steps.min() > 0  # never the same image twice
    assert steps.max() < 80  # never an older one: half a turn back looks like half a turn on


@pytest.mark.slow
def test_it_comes_back_each_time_the_pipeline_dies(program):
    with Camera(pipeline("width=64,height=48")) as camera:
        for _ in range(5):
            number = camera.read_frame().number
            (pipeline_program,) = programs(os.getpid())
            pipeline_program.kill()
            wait_until(lambda number=number: camera.read_frame(PATIENCE).number > number + 20)
    assert programs(os.getpid()) == []


def test_a_pipeline_that_hangs_is_ended(program, monkeypatch):
    source = PipelineProcess("videotestsrc is-live=true ! video/x-raw,width=64,height=48", CaptureSettings(), False)
    assert source.read() is not None
    monkeypatch.setattr(gstreamer, "READ_TIMEOUT", 0.3)
    os.kill(source._process.pid, signal.SIGSTOP)
    wait_until(lambda: source.read() is None)
    assert source._process.poll() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends the process of a program that is killed")
def test_nothing_is_left_of_it_after_sigkill(program, tmp_path):
    code = "import time; from teachcam.collect.camera import Camera; "
    code += f"camera = Camera({pipeline()!r}); print('open', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout.readline() == "open\n"
    (pipeline_program,) = programs(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not pipeline_program.is_running())
