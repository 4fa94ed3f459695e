"""Sinks take the result of every frame, and print, show, save or serve it.

To add a sink:

1. Write a class in a file of this folder. It needs `__call__(result) -> bool` and `close()`, as in `Sink`.
2. If it writes to something that may be slow (a disk, a pipe, a network), derive it from `ThreadedSink` instead, and
   write `_name`, `_prepare` and `_write`. `text.py` is the shortest example.
3. Add it to the list in `_open_sinks` of live/run.py, with its option.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from teachcam import ending
from teachcam.cli import first_line
from teachcam.collect.camera import Frame
from teachcam.errors import UserError
from teachcam.live.prediction import Prediction
from teachcam.live.sinks.overlay import annotate

if TYPE_CHECKING:
    from teachcam.live.prediction import Model

MAX_QUEUED_LINES = 1000  # lines of text: small, so half a minute of them may wait
MAX_QUEUED_IMAGES = 15  # half a second of video; 640x480 images take 0.9 MB each
STALL_TIMEOUT = 5.0  # seconds without a written entry until a sink that is closing is abandoned


class Sink(Protocol):
    """The interface of a sink. The live loop accepts any object with these two methods."""

    def __call__(self, result: FrameResult) -> bool:
        """Take a result, quickly: the loop waits for this call.

        Returns:
            False to end the loop, for example because the user closed a window. Else True.

        Raises:
            Exception: The loop logs the error, closes this sink, and goes on with the others.
        """

    def close(self) -> None:
        """Finish and release what the sink holds. The loop calls this once, when it ends."""


@dataclass
class FrameResult:
    """The result of one frame. Times are in seconds."""

    frame: Frame
    prediction: Prediction  # smoothed over the last frames: what the user sees
    raw_prediction: Prediction  # of this frame alone
    latency: float  # from the start of preprocessing to the prediction
    age: float  # from the capture of the frame to the prediction
    fps: float  # predictions per second, a moving average
    classifier: Model  # the model. Only the loop's thread may run it; other threads use clone_for_thread()

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's labels, in the order of its outputs."""
        return self.classifier.contract.labels

    @property
    def provider(self) -> str:
        """The execution provider that runs the model: tensorrt, cuda or cpu."""
        return self.classifier.provider

    def to_dict(self) -> dict[str, object]:
        """Return the prediction and its times in milliseconds, as JSON can hold them."""
        return {
            "frame": self.frame.number,
            **({} if self.frame.file is None else {"file": self.frame.file}),
            "time_s": round(self.frame.time, 6),
            "label": self.prediction.label,
            "confidence": round(self.prediction.confidence, 6),
            "probabilities": {label: round(value, 6) for label, value in self.prediction.probabilities.items()},
            "latency_ms": round(1000 * self.latency, 3),
            "age_ms": round(1000 * self.age, 3),
        }

    @cached_property
    def annotated_image(self) -> np.ndarray:
        """The image with the prediction drawn on it, uint8 [H, W, 3] BGR. All sinks share it: copy it to change it."""
        status = f"{self.fps:.0f} FPS, {1000 * self.age:.0f} ms old, {self.provider}"
        return annotate(self.frame.image, self.prediction, status)


def lower_thread_priority(nice: int) -> None:
    """Lower the scheduling priority of the calling thread. Does nothing except on Linux.

    Without this, a model that runs on all cores waits up to 10 ms for a core on which a sink works.

    Args:
        nice: The niceness, 0 to 19. A thread with 19 gets only the time that other threads leave.
    """
    if sys.platform != "linux":  # only Linux has a niceness per thread
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # not allowed everywhere, and the sink works without
        os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))


class ThreadedSink:
    """A sink that writes in a thread of its own, behind a queue, so that slow writing does not slow the loop.

    A subclass defines `_name`, `_prepare` and `_write`, and `_finish` if it has something to close. When the queue is
    full, a live camera's results are dropped and counted in `dropped`; a file's or a folder's results wait.

    Args:
        live: True for a live camera, False for a file or a folder.
        max_queued: Number of entries that may wait to be written.
        keep_newest: What a full queue drops: the entry that waits longest if True, else the new one.
    """

    def __init__(self, live: bool, max_queued: int, keep_newest: bool = False):
        self.dropped, self.written = 0, 0
        self._live, self._keep_newest = live, keep_newest
        self._queue: queue.Queue = queue.Queue(max_queued)
        self._error: BaseException | None = None
        self._abandoned = False  # by `close`, which could not wait longer
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    def __call__(self, result: FrameResult) -> bool:
        """Queue a result. Raises OSError or UserError if an earlier result could not be written."""
        if self._error is not None:
            raise self._error
        entry = self._prepare(result)
        if entry is None:
            return True
        while not self._live:
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=0.1)
                return True
            ending.check()
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.dropped += 1
            if self._keep_newest:  # only this thread adds entries, so after this there is room
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                self._queue.put_nowait(entry)
        return True

    def close(self, stall_timeout: float = STALL_TIMEOUT) -> None:
        """Write all that is queued and finish, however long it takes.

        Args:
            stall_timeout: Seconds without a written entry after which the sink is abandoned.

        Raises:
            OSError: Writing failed.
            UserError: Writing failed or stalled.
        """
        written, waited, asked = self.written, 0.0, False
        while self._thread.is_alive() and waited < stall_timeout:
            began = time.monotonic()
            try:
                if not asked:
                    self._queue.put(None, timeout=0.1)  # None ends the thread
                    asked = True
                self._thread.join(0.1)
            except queue.Full:
                pass
            waited = 0.0 if self.written != written else waited + time.monotonic() - began
            written = self.written
        error, self._error = self._error, None
        if error is not None:
            raise error
        if waited >= stall_timeout:
            self._abandoned = True
            raise UserError(f"{self._name()}: writing has stalled, so the last results are lost")

    def _run(self) -> None:
        entry: object = ()
        try:
            lower_thread_priority(5)  # not 19: beside other busy programs a recording would get no frames
            try:
                while (entry := self._next()) is not None:
                    self._write(entry)
                    self.written += 1
            finally:
                self._finish()
        except (OSError, UserError) as error:
            if isinstance(error, OSError):
                error.filename = error.filename or self._name()  # a write on a full disk names no file
            self._error = error
        except BaseException as error:  # whatever it is: a thread that ends without a word would look like success
            self._error = UserError(f"{self._name()}: {type(error).__name__}: {first_line(error)}")
        while entry is not None and not self._abandoned:  # after a failure, so that whoever waits for room gets it
            with contextlib.suppress(queue.Empty):
                entry = self._queue.get(timeout=1.0)

    def _name(self) -> str:
        """Return the name that error messages use, for example the option that the user gave."""
        raise NotImplementedError

    def _prepare(self, result: FrameResult) -> object:
        """Return the entry to queue, or None for nothing. Runs in the loop's thread, so it must be quick."""
        raise NotImplementedError

    def _next(self) -> object:
        """Wait for the next entry to write, or None for the end. Runs in the sink's thread."""
        return self._queue.get()

    def _write(self, entry: Any) -> None:
        """Write one entry. Runs in the sink's thread and may take its time."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Close what was opened. Runs in the sink's thread after the last entry, also after an error."""
