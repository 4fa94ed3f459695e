"""Where frames come from: one class for each kind of camera, all read in the same way.

A source has `live` (frames are lost if not read in time), `fps` (frames a second, 0 if unknown), `read()`
(the next frame, uint8 [H, W, 3] BGR, or None when there is no more) and `close()`. `Camera` does the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from collect.cli import UserError
from collect.dataset import IMAGE_SUFFIXES, UnreadableImage, read_image
from collect.synthetic import Synthetic


class CameraError(UserError):
    """No such camera, or one that stopped sending."""


class Source(Protocol):
    """What `Camera` needs of a source."""

    live: bool
    fps: float

    def read(self) -> np.ndarray | None:
        """Return the next frame, uint8 [H, W, 3] BGR, or None when there is no more."""

    def close(self) -> None:
        """Give the device or file back."""


def is_live(spec: str) -> bool:
    """Say whether `spec` names a camera (True) or a file or folder (False), without opening it."""
    return _usb_device(spec) is not None or spec.startswith(("synthetic", "http://", "https://", "rtsp://"))


def open_source(spec: str) -> Source:
    """Open what `spec` names, as `Camera` describes it. Raises CameraError where nothing answers."""
    if spec == "synthetic" or spec.startswith(("synthetic:", "synthetic?")):
        return Synthetic(spec[len("synthetic") :].lstrip(":"))
    if _usb_device(spec) is not None:
        return UsbCamera(_usb_device(spec))
    if spec.startswith(("http://", "https://", "rtsp://")):
        return NetworkCamera(spec)
    path = Path(spec)
    if path.is_dir():
        return ImageFolder(path)
    if path.is_file():
        return VideoFile(path) if path.suffix.lower() not in IMAGE_SUFFIXES else ImageFolder(path)
    raise CameraError(
        f"no camera, file or folder named {spec!r}; a camera is a number, /dev/videoN, http://..., rtsp://..., "
        "a video file, a folder of images, or synthetic"
    )


class _VideoCapture:
    """What OpenCV's VideoCapture reads, whichever backend it uses."""

    live = True

    def __init__(self, target: str | int, backend: int, parameters: tuple[int, ...] = ()):
        _quiet()
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
    """A camera of this machine, by its index."""

    def __init__(self, index: int):
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        super().__init__(index, backend, (cv2.CAP_PROP_BUFFERSIZE, 1))
        if not self.opened:
            here = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise CameraError(
                f"camera {index} does not open; cameras here: {', '.join(here) or 'none'}. "
                "Give another with --camera, or try --camera synthetic"
            )


class NetworkCamera(_VideoCapture):
    """A stream: MJPEG over HTTP, or RTSP."""

    def __init__(self, url: str):
        milliseconds = 5000
        parameters = (
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            milliseconds,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            milliseconds,
        )
        super().__init__(url, cv2.CAP_FFMPEG, parameters)
        if not self.opened:
            raise CameraError(f"no stream at {url}: is the camera on, and the address right?")


class VideoFile(_VideoCapture):
    """A recording: every frame, in order, then None."""

    live = False

    def __init__(self, path: Path):
        super().__init__(str(path), cv2.CAP_FFMPEG)
        if not self.opened:
            raise CameraError(f"{path} is not a video that can be read: is it whole?")


class ImageFolder:
    """A folder of images, or one image: every readable one, sorted by path; others are named on stderr."""

    live = False
    fps = 30.0

    def __init__(self, path: Path):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        self._paths = iter([file for file in files if file.suffix.lower() in IMAGE_SUFFIXES])
        self._first = self.read()
        if self._first is None:
            raise CameraError(f"no image that can be read in {path}")

    def read(self) -> np.ndarray | None:
        first, self._first = getattr(self, "_first", None), None
        if first is not None:
            return first
        for path in self._paths:
            try:
                return read_image(path)
            except UnreadableImage as error:
                print(f"skipped: {error}", file=sys.stderr)
        return None

    def close(self) -> None:
        """Nothing to give back."""


def _usb_device(spec: str) -> int | None:
    number = spec[len("/dev/video") :] if spec.startswith("/dev/video") else spec
    return int(number) if number.isdecimal() else None


def _quiet() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: what goes wrong is said once, by a CameraError."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
