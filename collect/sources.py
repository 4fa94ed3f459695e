"""The kinds of camera: one class each, which all give their images in the same way.

To add a new kind of camera:

1. Write a class with the attributes and methods of `Source`. Raise CameraError in `__init__` if it does not open.
2. Choose how users name it, as in `mycam:0`. Add a line to `open_source`, and, if it is live, to `is_live`.
3. Add it to the table in the docstring of `Camera` (collect/camera.py).

`Camera` adds the rest for every kind: the thread that reads, opening it again, flipping.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from teachcam.collect.synthetic import SyntheticCamera
from teachcam.errors import CameraError, UnreadableImage
from teachcam.images import IMAGE_SUFFIXES, is_image, read_image

logger = logging.getLogger(__name__)

URLS = ("http://", "https://", "rtsp://")
STREAM_TIMEOUT = 5000  # milliseconds that a stream may take to open, or to send the next image


class CaptureSettings(NamedTuple):
    """The image size and rate to request from a camera. With None the camera's default stays."""

    width: int | None = None  # pixels
    height: int | None = None  # pixels
    fps: float | None = None  # images per second


CAMERA_DEFAULTS = CaptureSettings()


class Source(Protocol):
    """The interface of each kind of camera, as `Camera` uses it."""

    live: bool  # True if images are lost unless they are read in time; False for files
    fps: float  # images per second, 0 if unknown

    def read(self) -> np.ndarray | None:
        """Wait for the next image, uint8 [H, W, 3] BGR. None at the end of a file, or if a live camera broke."""

    def close(self) -> None:
        """Release the device or file."""


def is_live(name: str) -> bool:
    """Return whether a name is that of a live camera. It is not opened. Other names are files or folders."""
    return usb_index(name) is not None or _is_synthetic(name) or name.startswith(("csi:", "gst:", *URLS))


def open_source(name: str, settings: CaptureSettings = CAMERA_DEFAULTS) -> Source:
    """Open a camera, a video or a folder of images.

    Args:
        name: Names the source as in the table of `Camera`.
        settings: Size and rate to request. USB, CSI and synthetic cameras obey; the others have no choice.

    Raises:
        CameraError: It does not exist or does not open.
    """
    if _is_synthetic(name):
        return SyntheticCamera(name[len("synthetic") :].lstrip(":"), *settings)
    index = usb_index(name)
    if index is not None:
        return UsbCamera(index, settings)
    if name.startswith("csi:"):
        return GStreamerCamera(csi_pipeline(name, settings))
    if name.startswith("gst:"):
        return GStreamerCamera(name[len("gst:") :])
    if name.startswith(URLS):
        return NetworkCamera(name)
    path = Path(name)
    if name and path.is_dir():
        return ImageFolder(path)
    if path.is_file():
        return ImageFolder(path) if path.suffix.lower() in IMAGE_SUFFIXES else VideoFile(path)
    raise CameraError(
        f"there is no camera, file or folder named {name!r}: use a number, /dev/videoN, csi:N, gst:PIPELINE, "
        "http://..., rtsp://..., a video file, a folder of images, or synthetic"
    )


class _VideoCapture:
    """Any source that OpenCV's VideoCapture reads."""

    live = True

    def __init__(self, target: str | int, backend: int, parameters: tuple[int, ...] = ()):
        silence_opencv()
        self._capture = cv2.VideoCapture(target, backend, list(parameters))
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 0.0

    @property
    def opened(self) -> bool:
        return self._capture.isOpened()

    def read(self) -> np.ndarray | None:
        return self._capture.read()[1]

    def close(self) -> None:
        self._capture.release()


class UsbCamera(_VideoCapture):
    """A camera of this machine, chosen by its index."""

    def __init__(self, index: int, settings: CaptureSettings):
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        super().__init__(index, backend)
        if not self.opened:
            devices = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise CameraError(
                f"camera {index} does not open; cameras here: {', '.join(devices) or 'none'}. "
                "Choose another with --camera, or try --camera synthetic"
            )
        if settings.width or settings.height:
            # USB 2 is too slow for uncompressed 720p at 30 FPS. Most cameras send JPEG on request.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        requested = {
            cv2.CAP_PROP_FRAME_WIDTH: settings.width,
            cv2.CAP_PROP_FRAME_HEIGHT: settings.height,
            cv2.CAP_PROP_FPS: settings.fps,
            cv2.CAP_PROP_BUFFERSIZE: 1,  # of the driver: every further image in it would be an old one
        }
        for name, value in requested.items():
            if value:
                self._capture.set(name, value)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 0.0


class NetworkCamera(_VideoCapture):
    """A stream from the network: MJPEG over HTTP, or RTSP."""

    def __init__(self, url: str):
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT)
        super().__init__(url, cv2.CAP_FFMPEG, timeouts)
        if not self.opened:
            raise CameraError(f"no stream at {url}: check that the camera is on and the address is right")


class GStreamerCamera(_VideoCapture):
    """Any GStreamer pipeline that ends in an appsink, for example that of a Jetson's CSI camera."""

    def __init__(self, pipeline: str):
        if not has_gstreamer():
            raise CameraError(
                "this OpenCV is built without GStreamer, which csi: and gst: cameras need (pip's always is): "
                "use the system's OpenCV, apt install python3-opencv, which JetPack has already"
            )
        super().__init__(pipeline, cv2.CAP_GSTREAMER)
        if not self.opened:
            raise CameraError(f"this GStreamer pipeline does not start: {pipeline}")


class VideoFile(_VideoCapture):
    """A video file: every image in order, then None."""

    live = False

    def __init__(self, path: Path):
        # Absolute, because FFmpeg takes the part of a name before a colon for a protocol.
        super().__init__(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self.opened:
            raise CameraError(f"{path} is not a readable video: is it complete?")


class ImageFolder:
    """An image file, or a folder with its subfolders: every image sorted by path. Unreadable ones are logged."""

    live = False
    fps = 0.0  # images have no clock

    def __init__(self, path: Path):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        self._paths = iter([file for file in files if is_image(file)])
        self._first: np.ndarray | None = None
        self._first = self.read()  # now, so that a folder without images is an error at once
        if self._first is None:
            raise CameraError(f"there is no readable image in {path}")

    def read(self) -> np.ndarray | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        for path in self._paths:
            try:
                return read_image(path)
            except UnreadableImage as error:
                logger.warning("skipped: %s", error)
        return None

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def usb_index(name: str) -> int | None:
    """Return the index of a USB camera named `0` or `/dev/video0`, or None for other names."""
    number = name[len("/dev/video") :] if name.startswith("/dev/video") else name
    return int(number) if number.isdecimal() and len(number) < 5 else None


def csi_pipeline(name: str, settings: CaptureSettings = CAMERA_DEFAULTS) -> str:
    """Return NVIDIA's GStreamer pipeline for a Jetson's CSI camera, which keeps only the newest image.

    Args:
        name: `csi:` and the number of the camera's port.
        settings: By default 1280x720 at 30 images per second.
    """
    number = name[len("csi:") :] or "0"
    if not number.isdecimal():
        raise CameraError(f"there is no CSI camera {name!r}: use csi:0, csi:1, ...")
    width, height = settings.width or 1280, settings.height or 720
    rate = f"{round(settings.fps or 30)}/1"
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def has_gstreamer() -> bool:
    """Return whether this OpenCV can run GStreamer pipelines."""
    return cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


def silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr. Their failures are raised as CameraError, once."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # "quiet"
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):  # older versions have neither
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _is_synthetic(name: str) -> bool:
    return name == "synthetic" or name.startswith(("synthetic:", "synthetic?"))
