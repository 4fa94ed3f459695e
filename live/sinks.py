"""Where answers go: JSON lines, text, an annotated video. The window is in screen.py, the web page in web.py.

A sink is called with each Result and says whether it can take more. Where it writes may be slow or gone: so it writes
in a thread of its own, behind a queue that a live camera's loop never waits for.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from collect.camera import Frame
from collect.cli import UserError, first_line
from collect.sources import quiet
from live.overlay import annotate
from live.smooth import Answer

if TYPE_CHECKING:
    from live.classifier import Classifier

LINES, PICTURES = 1000, 15  # what may wait to be written
STALLED = 5.0  # seconds without a sign of life until a sink is left behind
LONGEST_GAP = 2.0  # seconds for which a video shows the same picture: a camera that was away longer is cut out
KEPT_FREE = 32 << 20  # bytes of the disk that a recording leaves: its index still has to be written


@dataclass
class Result:
    """One frame, its answer, and how long both took. Times in seconds."""

    frame: Frame
    answer: Answer  # steadied
    raw: Answer  # of this frame alone
    latency: float  # from the frame in hand to the answer
    age: float  # from the frame's capture to the answer
    fps: float  # answers a second, lately
    provider: str  # which execution provider ran the model
    labels: tuple[str, ...]  # the model's
    classifier: Classifier | None = None  # the model; the loop's own thread runs it, any other its twin()

    @cached_property
    def picture(self) -> np.ndarray:
        """The annotated image, uint8 [H, W, 3] BGR: drawn once, however many sinks show it. Not to be changed."""
        state = f"{self.fps:.0f} FPS, {1000 * self.age:.0f} ms old, {self.provider}"
        return annotate(self.frame.image, self.answer, state)


def give_way(nice: int) -> None:
    """Let other threads go before this one, where threads have priorities of their own: 19 takes what they leave.

    Without it a model that runs on all cores waits up to 10 ms for one on which a sink is at work.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


class Written:
    """A sink that writes in a thread. Its kinds say what to write (`_prepare`, in the loop) and how (`_write`).

    With a live camera what does not fit in the queue is dropped, and counted; a file's frames are waited for. An error
    of writing is raised by the next call.
    """

    def __init__(self, live: bool, most: int):
        """Let `most` entries wait; `live` says whether the frames come from a camera."""
        self.dropped, self.written = 0, 0
        self._live = live
        self._queue: queue.Queue = queue.Queue(most)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    def __call__(self, result: Result) -> bool:
        """Hand it on. Raises what went wrong with the ones before (OSError, UserError)."""
        if self._error is not None:
            raise self._error
        entry = self._prepare(result)
        if entry is None:
            return True
        if not self._live:
            self._queue.put(entry)
            return True
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.dropped += 1
        return True

    def close(self, stalled: float = STALLED) -> None:
        """Write what still waits and finish, however long it takes, but leave it behind when it stalls.

        Raises what went wrong.
        """
        written, waited, asked = self.written, 0.0, False
        while self._thread.is_alive() and waited < stalled:
            began = time.monotonic()
            try:
                if not asked:
                    self._queue.put(None, timeout=0.1)
                    asked = True
                self._thread.join(0.1)
            except queue.Full:
                pass
            waited = 0.0 if self.written != written else waited + time.monotonic() - began
            written = self.written
        error, self._error = self._error, None
        if error is not None:
            raise error
        if waited >= stalled:
            raise UserError(f"{self._name()}: it can't be written to any more, what was waiting is lost")

    def _run(self) -> None:
        give_way(5)  # it must get its share beside other programs, or a recording has no frames
        entry: object = ()
        try:
            try:
                while (entry := self._queue.get()) is not None:
                    self._write(entry)
                    self.written += 1
            finally:
                self._finish()
        except (OSError, UserError) as error:
            self._error = error
        except Exception as error:
            self._error = UserError(f"{self._name()}: {type(error).__name__}: {first_line(error)}")
        while entry is not None:
            entry = self._queue.get()  # what was queued before the error was seen: nobody shall wait for room

    def _name(self) -> str:
        """Return what it is called where it is complained about."""
        raise NotImplementedError

    def _prepare(self, result: Result) -> object:
        raise NotImplementedError

    def _write(self, entry: object) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Close what was opened."""


class JsonLines(Written):
    """One JSON object a line on stdout, for programs."""

    def __init__(self, live: bool):
        """See Written."""
        self._stdout = sys.stdout  # the real one: while a model is loaded sys.stdout is another, for every thread
        super().__init__(live, LINES)

    def _name(self) -> str:
        return "stdout"

    def _prepare(self, result: Result) -> str:
        answer = result.answer
        return json.dumps(
            {
                "frame": result.frame.number,
                "label": answer.label,
                "confidence": round(answer.confidence, 6),
                "probabilities": {label: round(value, 6) for label, value in answer.probabilities.items()},
                "latency_ms": round(1000 * result.latency, 3),
                "age_ms": round(1000 * result.age, 3),
            }
        )

    def _write(self, entry: str) -> None:
        print(entry, file=self._stdout, flush=True)


class Changes(JsonLines):
    """One line on stdout whenever the answer changes, for people."""

    _last: str | None = None

    def _prepare(self, result: Result) -> str | None:
        if result.answer.label == self._last:
            return None
        self._last = result.answer.label
        return f"{result.frame.time:8.2f} s  {self._last}  {result.answer.confidence:.2f}"


class Video(Written):
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
