"""Where frames come from: one class for each kind of camera, all read in the same way.

A source has `live` (frames are lost if not read in time), `fps` (frames a second, 0 if unknown), `read()`
(the next frame, uint8 [H, W, 3] BGR, or None when there is no more) and `close()`. `Camera` does the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from teachcam.collect.synthetic import Synthetic
from teachcam.errors import CameraError, UnreadableImage
from teachcam.images import IMAGE_SUFFIXES, is_image, read_image

URLS = ("http://", "https://", "rtsp://")


class CaptureSettings(NamedTuple):
    """What is asked of a camera that can choose; None leaves it to the camera."""

    width: int | None = None  # pixels
    height: int | None = None
    fps: float | None = None


AS_IT_IS = CaptureSettings()


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
    return usb_index(spec) is not None or _is_synthetic(spec) or spec.startswith(("csi:", "gst:", *URLS))


def open_source(spec: str, wanted: CaptureSettings = AS_IT_IS) -> Source:
    """Open what `spec` names, as `Camera` describes it. Raises CameraError where nothing answers."""
    if _is_synthetic(spec):
        return Synthetic(spec[len("synthetic") :].lstrip(":"), wanted.width, wanted.height, wanted.fps)
    if usb_index(spec) is not None:
        return UsbCamera(usb_index(spec), wanted)
    if spec.startswith("csi:"):
        return GStreamerCamera(csi_pipeline(spec, wanted))
    if spec.startswith("gst:"):
        return GStreamerCamera(spec[len("gst:") :])
    if spec.startswith(URLS):
        return NetworkCamera(spec)
    path = Path(spec)
    if spec and path.is_dir():
        return ImageFolder(path)
    if path.is_file():
        return VideoFile(path) if path.suffix.lower() not in IMAGE_SUFFIXES else ImageFolder(path)
    raise CameraError(
        f"no camera, file or folder named {spec!r}; a camera is a number, /dev/videoN, csi:N, gst:PIPELINE, "
        "http://..., rtsp://..., a video file, a folder of images, or synthetic"
    )


class _VideoCapture:
    """What OpenCV's VideoCapture reads, whichever backend it uses."""

    live = True

    def __init__(self, target: str | int, backend: int, parameters: tuple[int, ...] = ()):
        quiet()
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

    def __init__(self, index: int, wanted: CaptureSettings):
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        super().__init__(index, backend)
        if not self.opened:
            here = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise CameraError(
                f"camera {index} does not open; cameras here: {', '.join(here) or 'none'}. "
                "Give another with --camera, or try --camera synthetic"
            )
        if wanted.width or wanted.height:
            # Uncompressed 720p does not fit through USB 2 at 30 FPS; most cameras give JPEG when asked.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))
        asked = {
            cv2.CAP_PROP_FRAME_WIDTH: wanted.width,
            cv2.CAP_PROP_FRAME_HEIGHT: wanted.height,
            cv2.CAP_PROP_FPS: wanted.fps,
            cv2.CAP_PROP_BUFFERSIZE: 1,
        }
        for name, value in asked.items():
            if value:
                self._capture.set(name, value)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 0.0


class NetworkCamera(_VideoCapture):
    """A stream: MJPEG over HTTP, or RTSP."""

    def __init__(self, url: str):
        patience = 5000  # milliseconds
        parameters = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience)
        super().__init__(url, cv2.CAP_FFMPEG, parameters)
        if not self.opened:
            raise CameraError(f"no stream at {url}: is the camera on, and the address right?")


class GStreamerCamera(_VideoCapture):
    """Whatever a GStreamer pipeline gives that ends in an appsink: a Jetson's CSI camera, for one."""

    def __init__(self, pipeline: str):
        if not has_gstreamer():
            raise CameraError(
                "this OpenCV is built without GStreamer, which csi: and gst: need (pip's always is): "
                "use the system's, apt install python3-opencv, as JetPack brings it"
            )
        super().__init__(pipeline, cv2.CAP_GSTREAMER)
        if not self.opened:
            raise CameraError(f"this GStreamer pipeline does not start: {pipeline}")


class VideoFile(_VideoCapture):
    """A recording: every frame, in order, then None."""

    live = False

    def __init__(self, path: Path):
        # Absolute: FFmpeg takes the part before a colon for a protocol.
        super().__init__(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self.opened:
            raise CameraError(f"{path} is not a video that can be read: is it whole?")


class ImageFolder:
    """A folder of images, or one image: every readable one, sorted by path; others are named on stderr."""

    live = False
    fps = 0.0  # they have no clock

    def __init__(self, path: Path):
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        self._paths = iter([file for file in files if is_image(file)])
        self._first = None
        self._first = self.read()
        if self._first is None:
            raise CameraError(f"no image that can be read in {path}")

    def read(self) -> np.ndarray | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        for path in self._paths:
            try:
                return read_image(path)
            except UnreadableImage as error:
                print(f"skipped: {error}", file=sys.stderr)
        return None

    def close(self) -> None:
        """Nothing to give back."""


def usb_index(spec: str) -> int | None:
    """Return the index that `0` or `/dev/video0` names, or None."""
    number = spec[len("/dev/video") :] if spec.startswith("/dev/video") else spec
    return int(number) if number.isdecimal() and len(number) < 5 else None


def csi_pipeline(spec: str, wanted: CaptureSettings = AS_IT_IS) -> str:
    """Return NVIDIA's pipeline for a Jetson's camera `csi:N`, newest frame only."""
    number = spec[len("csi:") :] or "0"
    if not number.isdecimal():
        raise CameraError(f"no CSI camera {spec!r}: csi:0, csi:1, ...")
    width, height = wanted.width or 1280, wanted.height or 720
    rate = f"{round(wanted.fps or 30)}/1"
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


def has_gstreamer() -> bool:
    """Say whether this OpenCV can run GStreamer pipelines."""
    return cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


def quiet() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: what goes wrong is said once, by a CameraError."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "utils") and hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _is_synthetic(spec: str) -> bool:
    return spec == "synthetic" or spec.startswith(("synthetic:", "synthetic?"))
