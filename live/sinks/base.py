"""Where answers go: JSON lines, text, an annotated video. The window is in screen.py, the web page in web.py.

A sink is called with each Result and says whether it can take more. Where it writes may be slow or gone: so it writes
in a thread of its own, behind a queue that a live camera's loop never waits for.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from teachcam.cli import first_line
from teachcam.collect.camera import Frame
from teachcam.errors import UserError
from teachcam.live.prediction import Prediction
from teachcam.live.sinks.overlay import annotate

if TYPE_CHECKING:
    from teachcam.live.classifier import Classifier

LINES, PICTURES = 1000, 15  # what may wait to be written
STALLED = 5.0  # seconds without a sign of life until a sink is left behind


@dataclass
class Result:
    """One frame, its answer, and how long both took. Times in seconds."""

    frame: Frame
    answer: Prediction  # steadied
    raw: Prediction  # of this frame alone
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


def lower_thread_priority(nice: int) -> None:
    """Let other threads go before this one, where threads have priorities of their own: 19 takes what they leave.

    Without it a model that runs on all cores waits up to 10 ms for one on which a sink is at work.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


class ThreadedSink:
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
        lower_thread_priority(5)  # it must get its share beside other programs, or a recording has no frames
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
