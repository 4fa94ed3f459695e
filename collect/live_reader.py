"""Reads a live camera in a thread, keeps its newest frame, and opens it again when it is lost or hangs."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, NamedTuple

import numpy as np

from teachcam import ending
from teachcam.cli import first_line
from teachcam.collect.sources import Source, flip_image
from teachcam.errors import CameraError, CameraTimeout

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds between two attempts to open a lost camera
RELEASE_TIME = 2.0  # seconds that a camera may take to be released, until the next one is opened nevertheless
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

    def __init__(
        self,
        name: str,
        open_camera: Callable[[str | None], Source],
        flip: str | None,
        stall: float,
        closed: threading.Event,
    ):
        """Start the thread. It opens the camera.

        Args:
            name: The camera's name, for messages.
            open_camera: Opens the camera, with the flip if it can flip its images itself. Called again whenever it is
                lost.
            flip: How every image is turned, as in `flip_image`.
            stall: Seconds without an image, after which the camera is opened again.
            closed: Set it to end the thread and whoever waits for a frame.
        """
        self.fps = 0.0
        self.newest: Frame | None = None
        self.reconnecting = False
        self.on_frame: Callable[[Frame], object] | None = None
        self._name, self._open_camera, self._flip = name, open_camera, flip
        self._stall, self._closed = stall, closed
        self._arrived = threading.Condition()  # notified when a frame or an error arrives, or the thread is replaced
        self._error: Exception | None = None
        self._switching = False  # meanwhile an error is one of the other camera, and `switch` raises it
        self._flips_itself = False  # whether the open camera does
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
            KeyboardInterrupt: A signal asked the program to end.
        """
        deadline = float("inf") if wait is None else time.monotonic() + wait
        while True:
            ending.check()
            with self._arrived:
                self._arrived.wait_for(
                    lambda: self._newer_than(after) or self._fatal_error() or self._closed.is_set(),
                    max(0.0, min(0.25, deadline - time.monotonic())),
                )
                frame, error, now = self._newer_than(after), self._fatal_error(), time.monotonic()
                if frame is not None:
                    return frame
                if error is not None:
                    raise error
                if self._closed.is_set():
                    raise CameraError(f"camera {self._name} is closed")
                # Before the timeout, because a reader that waits less than `stall` each time would never come here.
                is_opening = self.newest is None or self.reconnecting or self._switching
                if not is_opening and now - self._last_arrival > self._stall:
                    self._start_thread(reopen=True)  # the old one hangs inside its driver
            if now >= deadline:
                raise CameraTimeout(f"camera {self._name} sent nothing for {wait:g} s")

    def set_flip(self, flip: str | None) -> bool:
        """Turn the images in another way, the newest one, too. Returns False if the camera flips its images itself."""
        with self._arrived:
            if self._flips_itself:
                return False
            if self.newest is not None:
                upright = flip_image(self.newest.image, self._flip)  # each flip is its own inverse
                self.newest = self.newest._replace(image=flip_image(upright, flip))
            self._flip = flip
            return True

    def switch(self, name: str, open_camera: Callable[[str | None], Source], flip: str | None, timeout: float) -> None:
        """Read another camera from now on. Returns at its first frame. One thread at a time may call it.

        Args:
            name: The other camera's name, for messages.
            open_camera: Opens it, as for a new LiveReader.
            flip: How its images are turned.
            timeout: Seconds to wait for the first frame.

        Raises:
            CameraTimeout: The other camera sent nothing. The camera before is opened again.
            CameraError: The other camera does not open, the same; or this one is closed.
        """
        before = self._name, self._open_camera, self._flip
        try:
            with self._arrived:
                self._switching = True
                self._replace_thread(name, open_camera, flip)
                last = -1 if self.newest is None else self.newest.number
                self._arrived.wait_for(lambda: self._newer_than(last) or self._error or self._closed.is_set(), timeout)
                if self._newer_than(last) is None:
                    raise self._why_no_frame(timeout)
                self._switching = False
        except BaseException:  # an interruption, too
            with self._arrived:
                self._replace_thread(*before, reopen=True)
                self._switching = False
            raise

    def close(self) -> None:
        """End the thread, which releases the camera."""
        self._closed.set()
        with self._arrived:
            self._arrived.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)  # one that hangs in a driver is left behind: it is a daemon

    def _newer_than(self, number: int) -> Frame | None:
        return self.newest if self.newest is not None and self.newest.number > number else None

    def _fatal_error(self) -> Exception | None:
        return None if self._switching else self._error

    def _why_no_frame(self, timeout: float) -> CameraError:
        """Return the error of a camera that did not give its first frame."""
        if isinstance(self._error, CameraError):
            return self._error
        if self._error is not None:
            return CameraError(f"camera {self._name}: {first_line(self._error)}")
        if self._closed.is_set():
            return CameraError(f"camera {self._name} is closed")
        return CameraTimeout(f"camera {self._name} sent nothing for {timeout:g} s")

    def _replace_thread(
        self, name: str, open_camera: Callable[[str | None], Source], flip: str | None, reopen: bool = False
    ) -> None:
        """Read a camera in a new thread, which opens it once the thread before has released its own."""
        self._name, self._open_camera, self._flip = name, open_camera, flip
        self._error, self.reconnecting, self._pause = None, reopen, FIRST_PAUSE
        self._start_thread(reopen, previous=self._thread)
        self._arrived.notify_all()

    def _start_thread(self, reopen: bool = False, previous: threading.Thread | None = None) -> None:
        self._last_arrival = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(reopen, previous), name=f"read {self._name}", daemon=True
        )
        self._thread.start()

    # What the thread does

    def _run(self, reopen: bool, previous: threading.Thread | None) -> None:
        """Read the camera until it is closed or another thread has replaced this one, and keep the newest frame."""
        source = None
        try:
            if previous is not None:
                previous.join(RELEASE_TIME)
            source = self._reopen() if reopen else self._open()
            while source is not None and not self._is_over():
                image = source.read()
                if image is not None:
                    self._keep(image, time.monotonic())
                elif not self._is_over():
                    source.close()
                    source = self._reopen()
        except Exception as error:
            with self._arrived:
                if self._is_current():
                    self._error = error
                    self._arrived.notify_all()
        finally:
            if source is not None:
                source.close()

    def _is_current(self) -> bool:
        """Return False if another thread has replaced the calling one, which hung or whose camera is left."""
        return self._thread is threading.current_thread()

    def _is_over(self) -> bool:
        """Return whether the calling thread shall end."""
        return self._closed.is_set() or not self._is_current()

    def _wait_until_over(self, seconds: float) -> bool:
        """Wait at most so long, and return whether the calling thread shall end."""
        with self._arrived:
            return self._arrived.wait_for(self._is_over, seconds)

    def _keep(self, image: np.ndarray, now: float) -> None:
        with self._arrived:
            if not self._is_current():
                return
            self._first_captured = now if self._first_captured is None else self._first_captured
            number = 0 if self.newest is None else self.newest.number + 1
            if self.newest is not None and self.newest.image.shape != image.shape and not self._switching:
                (old_height, old_width), (height, width) = self.newest.image.shape[:2], image.shape[:2]
                logger.warning(
                    "camera %s: its images were %dx%d, and are %dx%d now",
                    self._name, old_width, old_height, width, height,
                )  # fmt: skip
            image = image if self._flips_itself else flip_image(image, self._flip)
            frame = Frame(image, number, now - self._first_captured, now)
            if self.on_frame is not None:
                self.on_frame(frame)
            self._last_arrival, self.newest = now, frame
            self._arrived.notify_all()

    def _open(self) -> Source | None:
        """Open the camera. Returns None if this thread shall end."""
        with self._arrived:
            if self._is_over():
                return None
            open_camera, flip = self._open_camera, self._flip
        source = open_camera(flip)
        with self._arrived:
            if self._is_current():
                self.fps, self._flips_itself = source.fps, getattr(source, "flipped", False)
        return source

    def _reopen(self) -> Source | None:
        """Try to open a lost camera until it opens. Returns None if this thread shall end."""
        with self._arrived:
            if self._is_over():
                return None
            self.reconnecting = True
            logger.warning("camera %s: lost, reconnecting", self._name)
            if time.monotonic() - self._opened > STABLE_AFTER:  # one that fails at once each time keeps its long pause
                self._pause = FIRST_PAUSE
        said: set[str] = set()
        while not self._wait_until_over(self._pause):
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            try:
                source = self._open()
            except CameraError as error:
                if str(error) not in said:  # each reason once: it may change, from a restart to a new password
                    logger.warning("not back yet: %s", error)
                said.add(str(error))
                continue
            with self._arrived:
                if source is not None and self._is_current():
                    self._opened = self._last_arrival = time.monotonic()
                    self.reconnecting = False
                    logger.warning("camera %s: back", self._name)
            return source
        return None
