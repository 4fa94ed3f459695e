"""Write an annotated video file."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from teachcam import ending
from teachcam.collect.video_capture import opencv_name, silence_opencv
from teachcam.errors import UserError
from teachcam.live.sinks.base import MAX_QUEUED_IMAGES, FrameResult, ThreadedSink

MIN_FPS, MAX_FPS, DEFAULT_FPS = 10.0, 120.0, 30.0  # rates that files state beyond these are mostly wrong
MAX_SIDE = 4096  # pixels; larger images are written smaller, because MPEG-4 ends at 8191
MAX_LIVE_GAP = 2.0  # seconds: after a longer gap (a lost camera) the video goes on at once, without a still image
MAX_FILE_GAP = 60.0  # seconds, the same for a file, where a gap is meant: some have an image every few seconds
MIN_FREE_BYTES = 32 << 20  # free disk space at which a recording ends: its index still has to be written

FINISH_TIMEOUT = 8.0  # seconds after a signal for the index, without which all of an .mp4 is lost; Docker waits for 10

logger = logging.getLogger(__name__)


class Video(ThreadedSink):
    """Writes an annotated video file (MPEG-4).

    An .mkv file can be played even if the program is killed. An .mp4 file can be played only if it was finished.

    Args:
        path: Where to write, .mp4 or .mkv. Its folder is created.
        fps: The camera's rate. Frames are repeated or left out to keep the recorded speed, even if it is wrong.
        live: True for a live camera, whose frames are dropped when writing is too slow.

    Raises:
        UserError: The suffix is another one, or the file exists.
    """

    def __init__(self, path: Path, fps: float, live: bool):
        if path.suffix.lower() not in (".mp4", ".mkv"):
            raise UserError(f"--record {path}: the name must end in .mp4 or .mkv")
        if path.exists():
            raise UserError(f"--record {path}: this file exists, give another name")
        self._opencv_name = opencv_name(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        silence_opencv()
        self._path, self._fps = path, fps if MIN_FPS <= fps <= MAX_FPS else DEFAULT_FPS
        self._writer: cv2.VideoWriter | None = None
        self._start_time = 0.0  # seconds, of Frame.time: when the file's first frame was taken, moved on by long gaps
        self._num_written = 0  # frames in the file
        self._max_gap = MAX_LIVE_GAP if live else MAX_FILE_GAP
        self._last: tuple[float, np.ndarray] | None = None  # the time of the last frame, and its image
        self._interval = 0.0  # seconds between the last two frames
        self._disk_checked = float("-inf")
        super().__init__(live, MAX_QUEUED_IMAGES)
        ending.hold(self.close)

    def _name(self) -> str:
        return f"--record {self._path}"

    def _prepare(self, result: FrameResult) -> FrameResult:
        return result

    def _write(self, entry: FrameResult) -> None:
        """Write one frame as often as its time needs. The first frame decides the size of the video."""
        self._check_disk()
        copies = self._count_copies(entry.frame.time)
        if not copies:
            return
        image = entry.annotated_image
        height, width = image.shape[:2]
        if self._writer is None:
            scale = min(1.0, MAX_SIDE / max(width, height))
            self._size = max(2, round(scale * width)), max(2, round(scale * height))
            self._writer = self._open_writer(self._size)
        if (width, height) != self._size:
            image = _fit(image, self._size)
        for _ in range(copies):
            self._writer.write(image)
        ending.hold(self.close)
        if self._last is not None:
            self._interval = entry.frame.time - self._last[0]
        self._last = entry.frame.time, image

    def _open_writer(self, size: tuple[int, int]) -> cv2.VideoWriter:
        writer = cv2.VideoWriter(self._opencv_name, cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
        if not writer.isOpened():
            raise UserError(
                f"--record {self._path}: this OpenCV can't write an MPEG-4 video of {size[0]}x{size[1]} pixels; "
                "install opencv-python"
            )
        return writer

    def _count_copies(self, time: float) -> int:
        """Return how often the frame of this time must be written. One frame early or late is tolerated."""
        if not self._num_written:
            self._start_time = time
        frames_behind = round((time - self._start_time) * self._fps) - self._num_written
        if frames_behind > self._max_gap * self._fps:
            self._start_time += frames_behind / self._fps
            frames_behind = 0
        copies = 0 if frames_behind < -1 else 1 if frames_behind <= 1 else 1 + frames_behind
        self._num_written += copies
        return copies

    def _check_disk(self) -> None:
        """End the recording before the disk is full: OpenCV reports no error, and without its index a file is lost."""
        now = time.monotonic()
        if now - self._disk_checked < 1.0:
            return
        self._disk_checked = now
        if shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES:
            raise UserError(
                f"--record {self._path}: less than {MIN_FREE_BYTES >> 20} MB free, so the recording ended here; "
                "free some space"
            )

    def _finish(self) -> None:
        """Finish the file, or delete it if no frame was written."""
        ending.hold(self.close, FINISH_TIMEOUT)
        try:
            self._finish_file()
        finally:
            ending.release(self.close)

    def _finish_file(self) -> None:
        if self._writer is None:
            self._path.unlink()
            return
        if self._last is not None and self._interval <= self._max_gap:  # the last frame is shown as long as the others
            for _ in range(round(self._interval * self._fps) - 1):
                self._writer.write(self._last[1])
        self._writer.release()
        if self.dropped:
            logger.warning(
                f"--record: {self.dropped} frames are missing from the video, because writing it was too slow"
            )


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image in another size (width, height), in its own shape, with black bars beside it."""
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    width, height = (max(1, min(full, round(scale * side))) for full, side in zip(size, image.shape[1::-1]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    fitted = np.zeros((size[1], size[0], 3), np.uint8)
    fitted[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return fitted
