"""The part that all sources which read through OpenCV's VideoCapture share."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from teachcam.errors import UserError
from teachcam.images import silence_opencv


class VideoCaptureSource:
    """A source that OpenCV's VideoCapture reads. Subclasses raise CameraError if it is not `opened`."""

    live = True

    def __init__(self, target: str | int, backend: int, parameters: tuple[int, ...] = ()):
        silence_opencv()
        self._capture = cv2.VideoCapture(target, backend, list(parameters))
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 0.0

    @property
    def opened(self) -> bool:
        """True if the device, stream or file could be opened."""
        return self._capture.isOpened()

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR. None at the end of a file, or if a live camera broke."""
        image = self._read_capture()
        return image if image is None or image.shape[2:] == (3,) else _to_bgr(image)

    def _read_capture(self) -> np.ndarray | None:
        return self._capture.read()[1]

    def close(self) -> None:
        """Release the device, stream or file."""
        self._capture.release()


def _to_bgr(image: np.ndarray) -> np.ndarray:
    """Return an image of GStreamer, which may be gray or have a fourth channel, as uint8 [H, W, 3] BGR."""
    image = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    gray = image.ndim == 2 or image.shape[2] == 1
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if gray else cv2.COLOR_BGRA2BGR)


def opencv_name(path: Path) -> str:
    """Return a path as OpenCV takes it: absolute, because FFmpeg takes the part before a colon for a protocol.

    Raises:
        UserError: It is not valid UTF-8, with which OpenCV would crash.
    """
    try:
        return os.fsencode(path.absolute()).decode()
    except UnicodeDecodeError:
        raise UserError(f"the name {str(path)!a} is not valid UTF-8: rename it") from None
