"""Video files: every frame in order, at its own time, upright as the file says."""

from __future__ import annotations

import math
import struct
from collections import deque
from pathlib import Path
from statistics import median
from typing import BinaryIO, Iterator

import cv2
import numpy as np

from teachcam.collect.video_capture import VideoCaptureSource, opencv_name
from teachcam.errors import CameraError

DEFAULT_FPS = 30.0  # assumed for files that state no rate, or none that is possible
MIN_FPS = 0.001  # lower ones in a header are wrong
MAX_FPS = 240.0  # above this a stated rate is a unit of time: MPEG-TS and WebM files state 1000 and more
MAX_GAP = 3600.0  # seconds between two frames; a larger step is a break in the file's clock
MAX_DISORDER = 0.5  # seconds that a timestamp may lie before the last one; a larger step back is a break, too
MIN_INTERVAL = 0.001  # seconds between frames that the file has in the wrong order, or at the same time
MIN_STEP = 1e-6  # seconds; timestamps that differ by less are the same


class VideoFile(VideoCaptureSource):
    """A video file: every image in order, then None.

    Attributes:
        time: The file's timestamp of the image that was read last, in seconds.
    """

    live = False
    file = None

    def __init__(self, path: Path):
        super().__init__(opencv_name(path), cv2.CAP_FFMPEG)
        if not self.opened:
            raise CameraError(f"{path} is not a readable video: is it complete?")
        self.fps = self.fps if 0 < self.fps <= MAX_FPS else DEFAULT_FPS
        self._matrix = read_display_matrix(path)
        if self._matrix is not None:  # OpenCV knows rotations only, and takes a mirrored video for a rotated one
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)

    @property
    def time(self) -> float:
        """The timestamp of the last image, in seconds. Older versions of OpenCV return 0 where there is none."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR, upright. None at the end."""
        image = super().read()
        return image if image is None or self._matrix is None else _oriented(image, self._matrix)


class FileClock:
    """Turns the timestamps of a file's frames into seconds that always increase, from 0 for the first frame.

    A frame without a time of its own comes the usual interval after the one before it. Where the file's clock begins
    again or leaps, the next frame does too, and the clock goes on from there.
    """

    def __init__(self, fps: float):
        """Start the clock.

        Args:
            fps: The file's rate, in images per second. 0 if it states none.
        """
        self._intervals: deque[float] = deque(maxlen=15)  # seconds between the last frames
        self._default_interval = 1 / (fps if MIN_FPS <= fps <= MAX_FPS else DEFAULT_FPS)
        self._time: float | None = None
        self._offset: float | None = None  # what is added to a timestamp, once there is one
        self._timestamp: float | None = None  # the last one

    def __call__(self, timestamp: float | None) -> float:
        """Return the time of the next frame.

        Args:
            timestamp: Time of this frame in the file, in seconds. None if it has none.
        """
        if timestamp is not None and not math.isfinite(timestamp):
            timestamp = None
        usual = median(self._intervals) if self._intervals else self._default_interval
        if self._time is None:
            time = 0.0
        elif timestamp is None or self._offset is None or timestamp == self._timestamp:
            time = self._time + usual
        else:
            time = timestamp + self._offset
            if not self._time - MAX_DISORDER <= time <= self._time + MAX_GAP:
                time, self._offset = self._time + usual, None
            elif time > self._time + MIN_STEP:
                self._intervals.append(time - self._time)
            else:
                time = self._time + MIN_INTERVAL
        if timestamp is not None:
            self._offset = time - timestamp if self._offset is None else self._offset
            self._timestamp = timestamp
        self._time = time
        return time


def read_display_matrix(path: Path) -> tuple[int, int, int, int] | None:
    """Return how the first video track of an MP4 or MOV file is to be turned or mirrored.

    Returns:
        The matrix a, b, c, d, each -1, 0 or 1: a pixel at (x, y) is shown at (a x + c y, b x + d y). None for other
        files, for the identity, and for angles that are no quarter turns.
    """
    try:
        with path.open("rb") as file:
            for header in _track_headers(file, path.stat().st_size):
                # ISO/IEC 14496-12, 8.3.2: the matrix and the size (16.16 fixed point) come last; sound has no size.
                a, b, _, c, d, *_, width, _ = struct.unpack(">11i", header[-44:])
                if width:
                    a, b, c, d = (round(value / 65536) for value in (a, b, c, d))
                    is_quarter_turn = abs(a * d - b * c) == 1 and abs(a) + abs(b) + abs(c) + abs(d) == 2
                    return (a, b, c, d) if is_quarter_turn and (a, b, c, d) != (1, 0, 0, 1) else None
    except (OSError, struct.error):
        pass
    return None


def _track_headers(file: BinaryIO, end: int, depth: int = 0) -> Iterator[bytes]:
    """Yield the content of each track header (`tkhd`); they lie in the boxes `moov` and `trak`, at depth 2."""
    while file.tell() + 8 <= end:
        start = file.tell()
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        box_end = start + size if size else end
        if not start + 8 <= box_end <= end:
            return
        if kind in (b"moov", b"trak") and depth < 2:
            yield from _track_headers(file, box_end, depth + 1)
        elif kind == b"tkhd":
            yield file.read(max(0, box_end - file.tell()))
        file.seek(box_end)


def _oriented(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror an image as a display matrix says."""
    a, b, c, d = matrix
    if a == 0:  # x and y change places
        image = image.transpose(1, 0, 2)
    rows, columns = -1 if b + d < 0 else 1, -1 if a + c < 0 else 1
    return np.ascontiguousarray(image[::rows, ::columns])
