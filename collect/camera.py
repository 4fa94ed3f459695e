"""One class for every kind of camera. A live camera gives its newest image, a file gives every image.

with Camera("0") as camera:
    image = camera.read()           # uint8 [H, W, 3], BGR

camera.observe(show, "value")       # calls `show` with each new image, as NVIDIA's jetcam does
camera.running = True
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Iterator, NamedTuple

import cv2
import numpy as np
import traitlets

from teachcam.collect.sources import CAMERA_DEFAULTS, CaptureSettings, Source, is_live, open_source
from teachcam.errors import CameraError, CameraTimeout

__all__ = ["Camera", "CameraError", "CameraTimeout", "CaptureSettings", "Frame"]

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds between two attempts to open a lost camera
STABLE_AFTER = 10.0  # seconds without a failure, after which the pause is short again
FLIPS = {"horizontal": 1, "vertical": 0, "180": -1}  # how images can be turned, and the codes of cv2.flip
FILE_FPS = 30.0  # assumed for files that do not state a rate


class Frame(NamedTuple):
    """An image of a camera, with its number and times."""

    image: np.ndarray  # uint8 [H, W, 3], BGR
    number: int  # counts all images of the camera from 0; a gap means that images in between were dropped
    time: float  # seconds since the first image: by the clock for a live camera, by the frame rate for a file
    captured: float  # time.monotonic() when the image was received, or read from its file


class _ImageTrait(traitlets.TraitType):
    """A trait that notifies at every assignment. Traitlets would compare the two images first, which is slow."""

    def set(self, obj, value):
        old, obj._trait_values[self.name] = obj._trait_values.get(self.name), value
        obj._notify_trait(self.name, old, value)


class Camera(traitlets.HasTraits):
    """A camera of any kind. The kind depends on the name of the source:

    `0`, `/dev/video0`                  a USB camera
    `csi:0`                             a Jetson's CSI camera, through GStreamer
    `gst:PIPELINE`                      any GStreamer pipeline that ends in an appsink
    `http://...`, `rtsp://...`          a network stream
    `clip.mp4`, `folder/`, `image.jpg`  files: every image in order, then the end
    `synthetic[:LABEL][?seed=N]`        drawn hands, see collect/synthetic.py

    A thread reads a live camera all the time and keeps only the newest image. So a slow reader never gets an old one,
    and no queue grows. If the camera breaks or hangs, the thread opens it again, and logs that.

    Attributes:
        value: The newest image, for observers, while `running` is True.
        running: Set it to True to update `value` from a thread, and to False to stop that.
        source: The name of the source.
        live: True for a camera, False for files.
        fps: The rate that the source states, in images per second. 0 if it states none.
        dropped: How many images of a live camera were never read, because newer ones came.
        reconnecting: True while a lost camera is being opened again.
        on_frame: Set it to a function that the reading thread calls with every Frame of a live camera.
    """

    value = _ImageTrait(None, allow_none=True)
    running = traitlets.Bool(False)

    def __init__(
        self,
        source: str | int = 0,
        *,
        settings: CaptureSettings = CAMERA_DEFAULTS,
        flip: str | None = None,
        timeout: float = 10.0,
        stall: float = 5.0,
        opener: Callable[[str, CaptureSettings], Source] = open_source,
    ):
        """Open the camera, and wait for its first image.

        Args:
            source: The name of the source, as in the table above. An int is the number of a USB camera.
            settings: The size and rate to request from the camera.
            flip: Turns every image: "horizontal" mirrors left and right, "vertical" up and down, "180" both.
            timeout: Seconds to wait for the first image of a live camera.
            stall: Seconds without an image, after which a live camera is opened again.
            opener: Opens the source. Tests replace it.

        Raises:
            CameraError: The source does not exist, does not open, or sends nothing; or `flip` is unknown.
        """
        super().__init__()
        if flip is not None and flip not in FLIPS:
            raise CameraError(f"flip {flip!r} is unknown: use one of {', '.join(FLIPS)}")
        self.source = str(source)
        self.live = is_live(self.source)
        self.fps = 0.0
        self.dropped = 0
        self.reconnecting = False
        self.on_frame: Callable[[Frame], object] | None = None
        self._settings, self._flip, self._stall, self._opener = settings, flip, stall, opener
        self._closed = threading.Event()
        self._arrived = threading.Condition()  # notified when a frame or an error arrives
        self._newest: Frame | None = None
        self._last_read = -1  # the number of the last frame that `read_frame` returned
        self._first_captured: float | None = None
        self._error: Exception | None = None
        self._last_arrival = self._opened = time.monotonic()
        self._pause = FIRST_PAUSE
        self._grabber: threading.Thread | None = None
        self._publisher: threading.Thread | None = None
        if not self.live:
            self._file = opener(self.source, settings)
            self.fps = self._file.fps
            return
        self._start_grabber()
        try:
            self._wait_for_newer(timeout)  # so that a camera that does not answer is an error here
        except CameraTimeout:
            self.close()
            raise CameraError(
                f"camera {self.source} sent nothing for {timeout:g} s: is it connected, and not in use by a program?"
            ) from None

    @property
    def metadata(self) -> dict[str, object]:
        """What a session's line in sessions.jsonl says about the camera: its source, flip and requested rate."""
        chosen = {"flip": self._flip, "camera_fps": self._settings.fps}
        return {"camera": self.source, **{name: value for name, value in chosen.items() if value is not None}}

    def read(self) -> np.ndarray | None:
        """Return the next image of a file, or the newest image of a live camera. Waits for one that is unread.

        Returns:
            uint8 [H, W, 3], BGR. None at the end of a file.
        """
        frame = self.read_frame()
        return None if frame is None else frame.image

    def read_frame(self, wait: float | None = None) -> Frame | None:
        """Return the image that `read` returns, with its number and times.

        Args:
            wait: Seconds to wait for a live camera. None waits without end.

        Returns:
            None at the end of a file.

        Raises:
            CameraTimeout: No new image arrived within `wait` seconds.
            CameraError: The camera is closed, or its driver failed.
        """
        if not self.live:
            return self._read_file()
        frame = self._wait_for_newer(wait)
        self.dropped += frame.number - self._last_read - 1
        self._last_read = frame.number
        return frame

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the file ends, or until a live camera is closed."""
        while not self._closed.is_set():
            frame = self.read_frame()
            if frame is None:
                return
            yield frame

    def close(self) -> None:
        """Stop reading, and release the camera."""
        self._closed.set()
        self.running = False
        with self._arrived:
            self._arrived.notify_all()
        if not self.live:
            self._file.close()
        for thread in (self._grabber, self._publisher):
            if thread is not None and thread is not threading.current_thread():
                thread.join(1.0)  # one that hangs in a driver is left behind: it is a daemon

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # Reading files

    def _read_file(self) -> Frame | None:
        if self._error:
            raise self._error
        image = None if self._closed.is_set() else self._file.read()
        if image is None:
            return None
        self._last_read += 1
        return Frame(self._flipped(image), self._last_read, self._last_read / (self.fps or FILE_FPS), time.monotonic())

    def _flipped(self, image: np.ndarray) -> np.ndarray:
        return image if self._flip is None else cv2.flip(image, FLIPS[self._flip])

    # Reading live cameras: the calling thread

    def _wait_for_newer(self, wait: float | None) -> Frame:
        """Wait for an unread frame, and raise what stops the camera. Replace a grabber thread that hangs."""
        deadline = float("inf") if wait is None else time.monotonic() + wait
        while True:
            with self._arrived:
                self._arrived.wait_for(
                    lambda: self._unread() or self._error or self._closed.is_set(),
                    max(0.0, min(0.25, deadline - time.monotonic())),
                )
                frame = self._unread()
            if frame is not None:
                return frame
            if self._error:
                raise self._error
            if self._closed.is_set():
                raise CameraError(f"camera {self.source} is closed")
            now = time.monotonic()
            if now >= deadline:
                raise CameraTimeout(f"camera {self.source} sent nothing for {wait:g} s")
            if self._newest is not None and not self.reconnecting and now - self._last_arrival > self._stall:
                self._start_grabber(reopen=True)  # the old one hangs inside its driver

    def _unread(self) -> Frame | None:
        return self._newest if self._newest is not None and self._newest.number > self._last_read else None

    def _start_grabber(self, reopen: bool = False) -> None:
        self._last_arrival = time.monotonic()
        self._grabber = threading.Thread(target=self._grab, args=(reopen,), name=f"grab {self.source}", daemon=True)
        self._grabber.start()

    # Reading live cameras: the grabber thread, the only one that uses the source

    def _grab(self, reopen: bool) -> None:
        """Read the camera until it is closed, and keep the newest frame."""
        me, source = threading.current_thread(), None
        try:
            source = self._reopen() if reopen else self._opener(self.source, self._settings)
            self.fps = source.fps if source is not None else 0.0
            while not self._closed.is_set() and source is not None:
                image = source.read()
                if self._grabber is not me:
                    return  # this thread hung for so long that another one replaced it
                if image is not None:
                    self._keep(self._flipped(image), time.monotonic())
                else:
                    source.close()
                    source = self._reopen()
        except Exception as error:
            if self._grabber is me:
                with self._arrived:
                    self._error = error
                    self._arrived.notify_all()
        finally:
            if source is not None:
                source.close()

    def _keep(self, image: np.ndarray, now: float) -> None:
        self._first_captured = now if self._first_captured is None else self._first_captured
        number = 0 if self._newest is None else self._newest.number + 1
        frame = Frame(image, number, now - self._first_captured, now)
        if self.on_frame is not None:
            self.on_frame(frame)
        with self._arrived:
            self._last_arrival, self._newest = now, frame
            self._arrived.notify_all()

    def _reopen(self) -> Source | None:
        """Try to open a lost camera until it opens. Returns None if the camera was closed meanwhile."""
        self.reconnecting = True
        logger.warning("camera %s: lost, opening it again", self.source)
        if time.monotonic() - self._opened > STABLE_AFTER:  # one that fails at once each time keeps its long pause
            self._pause = FIRST_PAUSE
        while not self._closed.wait(self._pause):
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            try:
                source = self._opener(self.source, self._settings)
            except CameraError:
                continue
            else:
                self._opened = time.monotonic()
                logger.warning("camera %s: back", self.source)
                self.reconnecting, self._last_arrival = False, time.monotonic()
                return source
        return None

    # Publishing to observers

    @traitlets.observe("running")
    def _start_publisher(self, change) -> None:
        if change.new:
            self._publisher = threading.Thread(target=self._publish, name=f"publish {self.source}", daemon=True)
            self._publisher.start()

    def _publish(self) -> None:
        """Assign each image to `value`. An error ends this, and the next `read` raises it."""
        me = threading.current_thread()
        try:
            while self.running and self._publisher is me and (image := self.read()) is not None:
                self.value = image
        except Exception as error:
            if not self._closed.is_set():
                self._error = error
        finally:
            if self._publisher is me:  # not if `running` was set to False and True again meanwhile
                self.running = False
