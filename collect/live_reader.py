"""Reads a live camera in a thread, keeps its newest frame, and opens it again when it is lost or hangs."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, NamedTuple

import numpy as np

from teachcam.collect.sources import Source
from teachcam.errors import CameraError, CameraTimeout

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds between two attempts to open a lost camera
STABLE_AFTER = 10.0  # seconds without a failure, after which the pause is short again


class Frame(NamedTuple):
    """An image of a camera, with its number and times."""

    image: np.ndarray  # uint8 [H, W, 3], BGR
    number: int  # counts all images of the camera from 0; a gap means that images in between were dropped
    time: float  # seconds since the first image: by the clock for a live camera, by its own timestamps for a file
    captured: float  # time.monotonic() when the image was received, or read from its file
    file: str | None = None  # the image's own file, for a folder of images: its path from there


class LiveReader:
    """The newest frame of a live camera. A thread reads the camera, and is the only one that uses it.

    Attributes:
        fps: The rate that the camera states, in images per second. 0 if it states none.
        newest: The newest frame. None before the first one.
        reconnecting: True while a lost camera is being opened again.
        on_frame: Set it to a function that the thread calls with every frame.
    """

    def __init__(self, name: str, open_camera: Callable[[], Source], stall: float, closed: threading.Event):
        """Start the thread. It opens the camera.

        Args:
            name: The camera's name, for messages.
            open_camera: Opens the camera. Called again whenever it is lost.
            stall: Seconds without an image, after which the camera is opened again.
            closed: Set it to end the thread and whoever waits for a frame.
        """
        self.fps = 0.0
        self.newest: Frame | None = None
        self.reconnecting = False
        self.on_frame: Callable[[Frame], object] | None = None
        self._name, self._open_camera, self._stall, self._closed = name, open_camera, stall, closed
        self._arrived = threading.Condition()  # notified when a frame or an error arrives
        self._error: Exception | None = None
        self._first_captured: float | None = None
        self._opened = time.monotonic()
        self._pause = FIRST_PAUSE
        self._start_thread()

    def wait_for_frame(self, after: int, wait: float | None) -> Frame:
        """Wait for a frame that is newer than another one, and return the newest.

        Args:
            after: The number of the other frame. -1 accepts the first frame.
            wait: Seconds to wait. None waits without end.

        Raises:
            CameraTimeout: No newer frame arrived within `wait` seconds.
            CameraError: The camera is closed, or does not open.
        """
        deadline = float("inf") if wait is None else time.monotonic() + wait
        while True:
            with self._arrived:
                self._arrived.wait_for(
                    lambda: self._newer_than(after) or self._error or self._closed.is_set(),
                    max(0.0, min(0.25, deadline - time.monotonic())),
                )
                frame = self._newer_than(after)
            if frame is not None:
                return frame
            if self._error:
                raise self._error
            if self._closed.is_set():
                raise CameraError(f"camera {self._name} is closed")
            now = time.monotonic()
            if now >= deadline:
                raise CameraTimeout(f"camera {self._name} sent nothing for {wait:g} s")
            if self.newest is not None and not self.reconnecting and now - self._last_arrival > self._stall:
                self._start_thread(reopen=True)  # the old one hangs inside its driver

    def close(self) -> None:
        """End the thread, which releases the camera."""
        self._closed.set()
        with self._arrived:
            self._arrived.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)  # one that hangs in a driver is left behind: it is a daemon

    def _newer_than(self, number: int) -> Frame | None:
        return self.newest if self.newest is not None and self.newest.number > number else None

    def _start_thread(self, reopen: bool = False) -> None:
        self._last_arrival = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(reopen,), name=f"read {self._name}", daemon=True)
        self._thread.start()

    # What the thread does

    def _run(self, reopen: bool) -> None:
        """Read the camera until it is closed, and keep the newest frame."""
        me, source = threading.current_thread(), None
        try:
            source = self._reopen() if reopen else self._open_camera()
            self.fps = source.fps if source is not None else 0.0
            while not self._closed.is_set() and source is not None:
                image = source.read()
                if self._thread is not me:
                    return  # this thread hung for so long that another one replaced it
                if image is not None:
                    self._keep(image, time.monotonic())
                else:
                    source.close()
                    source = self._reopen()
        except Exception as error:
            if self._thread is me:
                with self._arrived:
                    self._error = error
                    self._arrived.notify_all()
        finally:
            if source is not None:
                source.close()

    def _keep(self, image: np.ndarray, now: float) -> None:
        self._first_captured = now if self._first_captured is None else self._first_captured
        number = 0 if self.newest is None else self.newest.number + 1
        if self.newest is not None and self.newest.image.shape != image.shape:
            (old_height, old_width), (height, width) = self.newest.image.shape[:2], image.shape[:2]
            logger.warning(
                "camera %s: its images were %dx%d, and are %dx%d now", self._name, old_width, old_height, width, height
            )
        frame = Frame(image, number, now - self._first_captured, now)
        if self.on_frame is not None:
            self.on_frame(frame)
        with self._arrived:
            self._last_arrival, self.newest = now, frame
            self._arrived.notify_all()

    def _reopen(self) -> Source | None:
        """Try to open a lost camera until it opens. Returns None if it was closed meanwhile."""
        self.reconnecting, said = True, set()
        logger.warning("camera %s: lost, reconnecting", self._name)
        if time.monotonic() - self._opened > STABLE_AFTER:  # one that fails at once each time keeps its long pause
            self._pause = FIRST_PAUSE
        while not self._closed.wait(self._pause):
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            try:
                source = self._open_camera()
            except CameraError as error:
                if str(error) not in said:  # each reason once: it may change, from a restart to a new password
                    logger.warning("not back yet: %s", error)
                said.add(str(error))
            else:
                self._opened = time.monotonic()
                logger.warning("camera %s: back", self._name)
                self.reconnecting, self._last_arrival = False, time.monotonic()
                return source
        return None
