"""The GStreamer path, against an OpenCV that has it: a Jetson's, or Debian's python3-opencv."""

from __future__ import annotations

import cv2
import pytest

from teachcam.collect.camera import Camera, CameraError
from teachcam.collect.sources import has_gstreamer

pytestmark = pytest.mark.skipif(not has_gstreamer(), reason="this OpenCV is built without GStreamer")
TEST_SOURCE = (
    "gst:videotestsrc is-live=true ! video/x-raw,width=640,height=480 ! videoconvert ! video/x-raw,format=BGR ! "
    "appsink drop=true max-buffers=1 sync=false"
)


def test_a_pipeline_gives_frames_at_its_rate():
    with Camera(TEST_SOURCE) as camera:
        frames = [camera.read_frame() for _ in range(30)]
    assert frames[0].image.shape == (480, 640, 3)
    assert 20 < 29 / (frames[-1].captured - frames[0].captured) < 40
    assert cv2.norm(frames[0].image) > 0


def test_a_pipeline_that_does_not_start_says_so():
    with pytest.raises(CameraError, match="does not start"):
        Camera("gst:nosuchelement ! appsink")
    with pytest.raises(CameraError, match=r"does not start: nvarguscamerasrc|csi:0 sent nothing"):
        Camera("csi:0", timeout=2)  # some versions of OpenCV start a pipeline that lacks its first element


@pytest.mark.parametrize("form", ["GRAY8", "BGRx", "BGRA", "GRAY16_LE"])
def test_every_format_becomes_bgr(form):
    pipeline = f"gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,format={form} ! appsink drop=true"
    with Camera(pipeline) as camera:
        image = camera.read()
    assert (image.shape, image.dtype.name) == ((48, 64, 3), "uint8")
    assert 20 < image.mean() < 235
