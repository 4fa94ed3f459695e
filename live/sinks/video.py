"""Write an annotated video file."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import cv2

from teachcam.collect.sources import quiet
from teachcam.errors import UserError
from teachcam.live.sinks.base import PICTURES, Result, ThreadedSink

LONGEST_GAP = 2.0  # seconds for which a video shows the same picture: a camera that was away longer is cut out
KEPT_FREE = 32 << 20  # bytes of the disk that a recording leaves: its index still has to be written


class Video(ThreadedSink):
    """An annotated video file (MPEG-4): .mkv, or .mp4, which can be played only if it was ended."""

    def __init__(self, path: Path, fps: float, live: bool):
        """Write to `path`, to be played at `fps`. Raises UserError now if that can't be done."""
        if path.suffix.lower() not in (".mp4", ".mkv"):
            raise UserError(f"--record {path}: give a name that ends in .mp4 or .mkv")
        if path.exists():
            raise UserError(f"--record {path}: there is one already, give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        quiet()
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._began, self._frames = 0.0, 0  # when the first frame was taken, and how many there are in the file
        self._checked = float("-inf")
        super().__init__(live, PICTURES)

    def _name(self) -> str:
        return f"--record {self._path}"

    def _prepare(self, result: Result) -> Result:
        return result

    def _write(self, entry: Result) -> None:
        """Write one frame, as often as it takes to play as fast as it was; the first decides the size."""
        self._check_disk()
        copies = self._copies(entry.frame.time)
        if not copies:
            return
        picture = entry.picture
        height, width = picture.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            # Absolute: FFmpeg takes the part before a colon for a protocol.
            writer = cv2.VideoWriter(str(self._path.absolute()), code, self._fps, (width, height))
            if not writer.isOpened():
                raise UserError(f"this OpenCV can't write a video to {self._path}")
            self._writer, self._size = writer, (width, height)
        if (width, height) != self._size:
            picture = cv2.resize(picture, self._size)
        for _ in range(copies):
            self._writer.write(picture)

    def _copies(self, time: float) -> int:
        """Return how often the frame of this time is to be written; one place early or late is no matter."""
        if not self._frames:
            self._began = time
        late = round((time - self._began) * self._fps) - self._frames
        if late > LONGEST_GAP * self._fps:
            self._began += late / self._fps
            late = 0
        copies = 0 if late < -1 else 1 if late <= 1 else 1 + late
        self._frames += copies
        return copies

    def _check_disk(self) -> None:
        """End in time: OpenCV says nothing of a full disk, and a file without its index can't be played."""
        now = time.monotonic()
        if now - self._checked < 1.0:
            return
        self._checked = now
        if shutil.disk_usage(self._path.parent).free < KEPT_FREE:
            raise UserError(
                f"--record {self._path}: less than {KEPT_FREE >> 20} MB free, so the recording ended here; "
                "free some space"
            )

    def _finish(self) -> None:
        """Finish the file; none is left if there was no frame."""
        if self._writer is None:
            self._path.unlink()
        else:
            self._writer.release()
            if self.dropped:
                print(f"--record: {self.dropped} frames left out, it can't be written as fast", file=sys.stderr)
