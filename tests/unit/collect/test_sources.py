"""The names of cameras, files and folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from teachcam.collect import probe, sources
from teachcam.collect.camera import Camera, CameraError
from teachcam.collect.sources import is_live, usb_device
from teachcam.images import encode_jpeg


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder whose files do not sort by themselves, with some that are no images."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(["frame1.jpg", "frame2.jpg", "frame10.JPG", "more/a.png", "scan.tif", "web.jfif"]):
        ending = ".jpg" if name.endswith("jfif") else Path(name).suffix
        content = cv2.imencode(ending, np.full((8, 8, 3), 10 * number, np.uint8))[1].tobytes()
        (folder / name).write_bytes(content)
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 16)
    (folder / "disguised.jpg").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 16)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").write_text("x")
    return folder


def test_a_folder_is_read_in_natural_order_and_says_what_it_leaves_out(pictures, caplog):
    with Camera(str(pictures)) as camera:
        frames = list(camera)
    names = [frame.file for frame in frames]
    assert names == ["frame1.jpg", "frame2.jpg", "frame10.JPG", "more/a.png", "scan.tif", "web.jfif"]
    assert [round(frame.image.mean() / 10) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert f"left out of {pictures}: 1 .heic (save them as JPEG), 1 .txt" in caplog.text
    assert "disguised.jpg: a HEIC or AVIF picture" in caplog.text


def test_a_folder_with_phone_photos_only_says_what_to_do(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(CameraError, match=r"no readable image in .* \(1 \.heic \(save them as JPEG\)\)"):
        Camera(str(tmp_path))


def test_every_name_of_a_device_is_a_camera(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda target, *_: opened.append(target) or Closed())
    left = tmp_path / "webcam_left"
    left.symlink_to("/dev/video3")  # dangling here: the camera is not plugged in
    other = tmp_path / "other"
    other.symlink_to("/dev/null")  # a character device with another name
    for name in ("3", "/dev/video3", str(left), str(other), "/dev/v4l/by-id/usb-x-index0"):
        assert is_live(name)
        with pytest.raises(CameraError, match="does not open"):
            sources.open_source(name)
    assert opened == [3, 3, 3, "/dev/null", "/dev/v4l/by-id/usb-x-index0"]


@pytest.mark.parametrize("name", ["csi:0", "CSI:0", "gst:videotestsrc", "GST:videotestsrc"])
def test_a_prefix_may_be_in_capitals(name, monkeypatch):
    pipelines = []
    monkeypatch.setattr(sources, "open_gstreamer", lambda pipeline, *_, **__: pipelines.append(pipeline))
    assert is_live(name)
    sources.open_source(name)
    assert pipelines[0].startswith(("nvarguscamerasrc sensor-id=0 ", "videotestsrc"))


class Closed:
    """A VideoCapture that could not open its device."""

    def get(self, _):
        return 0.0

    def isOpened(self):
        return False


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm")
def test_a_file_in_dev_is_a_file():
    path = Path(f"/dev/shm/teachcam-test-{os.getpid()}.png")
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    try:
        assert not is_live(str(path))
        assert usb_device(str(path.parent)) is None
        with Camera(path) as camera:
            assert camera.read().shape == (8, 8, 3)
    finally:
        path.unlink()


def test_home_folders_and_file_addresses_are_paths(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    for name in ("~/pictures", f"file://{pictures}/frame1.jpg", pictures.as_uri()):
        with Camera(name) as camera:
            assert camera.read().mean() == 0


@pytest.mark.parametrize("url", ["ftp://host/x", "nonsense://x", "s3://bucket/x.mp4"])
def test_an_address_that_nothing_reads_is_an_error_that_names_those_that_are_read(url):
    with pytest.raises(CameraError, match=rf"{url} can't be opened: an address must begin with http://.*or file://"):
        Camera(url)


def test_the_lasting_names_of_a_device_are_found(tmp_path):
    (tmp_path / "usb-Logitech-index0").symlink_to("/dev/video0")
    assert probe._links_by_device(tmp_path) == {"/dev/video0": [tmp_path / "usb-Logitech-index0"]}


def test_cameras_are_found_without_opening_the_one_in_use(monkeypatch):
    opened = []

    def refuse(source, timeout):
        opened.append(source)
        raise sources.CameraError("not here")

    monkeypatch.setattr(probe, "Camera", refuse)
    monkeypatch.setattr(probe.Path, "glob", lambda self, pattern: [Path("/dev/video2"), Path("/dev/video0")])
    assert list(probe.find_cameras(in_use="0")) == []
    assert opened == ["/dev/video2"]


class NoisyWebcam:
    """A webcam as OpenCV reads it, whose pictures are decoded by libjpeg inside `retrieve`."""

    def __init__(self, content: bytes):
        self._content = np.frombuffer(content, np.uint8)

    def isOpened(self):
        return True

    def get(self, _):
        return 30.0

    set = grab = release = lambda *_: True

    def retrieve(self):
        return True, cv2.imdecode(self._content, cv2.IMREAD_COLOR)


@pytest.mark.skipif(sys.platform != "linux", reason="C's stderr is a variable in glibc only")
def test_a_webcam_fills_no_journal(monkeypatch, capfd):
    jpeg = encode_jpeg(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    whole, half = jpeg[:-2] + b"\x12" * 20 + b"\xff\xd9", jpeg[: len(jpeg) // 2] + b"\xff\xd9"
    for content, num_lines in ((whole, 0), (half, 1)):
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: NoisyWebcam(content))  # noqa: B023  # called at once
        source = sources.UsbCamera(77, sources.CAMERA_DEFAULTS)
        assert [source.read().shape for _ in range(3)] == [(48, 64, 3)] * 3
        said = capfd.readouterr().err
        assert said.count("\n") == num_lines, said
    assert "warning: camera 77: a damaged picture" in said
