"""One class for every camera: the newest frame of a live one, every frame of a file.

with Camera("0") as camera:
    image = camera.read()           # uint8 [H, W, 3], BGR

camera.observe(show, "value")       # as jetcam does it: `show` is called with each new image
camera.running = True
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Callable, Iterator, NamedTuple

import cv2
import numpy as np
import traitlets

from teachcam.collect.sources import AS_IT_IS, CaptureSettings, Source, is_live, open_source
from teachcam.errors import CameraError, CameraTimeout

__all__ = ["Camera", "CameraError", "CameraTimeout", "CaptureSettings", "Frame"]

FLIPS = {"horizontal": 1, "vertical": 0, "180": -1}  # cv2.flip's codes


class Frame(NamedTuple):
    """One frame, and when it was taken."""

    image: np.ndarray  # uint8 [H, W, 3], BGR
    number: int  # counts every frame the source gave, from 0; a gap is frames dropped
    time: float  # seconds since the source's first frame: by the clock for a camera, by its rate for a file
    captured: float  # time.monotonic() when it was grabbed, or read from its file


class _Image(traitlets.TraitType):
    """A trait that always notifies: comparing a frame with the one before costs more than handing it on."""

    def set(self, obj, value):
        old, obj._trait_values[self.name] = obj._trait_values.get(self.name), value
        obj._notify_trait(self.name, old, value)


class Camera(traitlets.HasTraits):
    """A camera, opened by what `source` names:

    `0`, `/dev/video0`                  a USB camera
    `csi:0`                             a Jetson's camera, through GStreamer
    `gst:PIPELINE`                      any GStreamer pipeline that ends in an appsink
    `http://...`, `rtsp://...`          a stream
    `clip.mp4`, `folder/`, `image.jpg`  files: every frame in order, then the end
    `synthetic[:LABEL][?seed=N]`        drawn hands, see `collect.synthetic`

    A live camera is read by a thread that keeps its newest frame only, so that no reader ever sees a stale one
    and nothing queues up; `tap`, if set, is called in that thread with every frame. A camera that breaks, or says
    nothing for `stall` seconds, is opened again with a growing pause: `lost` is True meanwhile, and it is said on
    stderr. Files are read frame by frame, none dropped.

    Raises CameraError where nothing answers within `timeout` seconds of the start.
    """

    value = _Image(None, allow_none=True)
    running = traitlets.Bool(False)

    def __init__(
        self,
        source: str | int = 0,
        *,
        wanted: CaptureSettings = AS_IT_IS,
        flip: str | None = None,
        timeout: float = 10.0,
        stall: float = 5.0,
        opener: Callable[[str, CaptureSettings], Source] = open_source,
    ):
        super().__init__()
        self.source = str(source)
        self.live = is_live(self.source)
        self.dropped = 0  # frames of a live camera that came and went unread
        self.lost = False  # whether it is being opened again
        self.fps = 0.0  # what the source says of itself; 0 if it does not
        self.tap: Callable[[Frame], None] | None = None
        self._wanted, self._flip, self._stall, self._opener = wanted, FLIPS.get(flip), stall, opener
        self._closed = threading.Event()
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._last_read = -1
        self._first: float | None = None  # when the first frame was captured
        self._error: Exception | None = None
        self._heard = self._opened = time.monotonic()  # when the last frame came, when the source was opened
        self._pause = 0.25  # seconds until a lost source is opened again
        self._grabber: threading.Thread | None = None
        self._publisher: threading.Thread | None = None
        if not self.live:
            self._file = opener(self.source, wanted)
            self.fps = self._file.fps
            return
        self._start_grabber()
        try:
            self._wait_for_newer(timeout)  # so that a camera that does not answer is known now
        except CameraTimeout:
            self.close()
            raise CameraError(
                f"camera {self.source} sent nothing for {timeout:g} s: is it connected, and not in use by a program?"
            ) from None

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR: of a live camera the newest, waiting for one not yet read.

        None at the end of a file.
        """
        frame = self.read_frame()
        return None if frame is None else frame.image

    def read_frame(self, wait: float | None = None) -> Frame | None:
        """Return what `read` does, with its number and times; raises CameraTimeout after `wait` seconds, if given."""
        if not self.live:
            return self._next_of_file()
        frame = self._wait_for_newer(wait)
        self.dropped += frame.number - self._last_read - 1
        self._last_read = frame.number
        return frame

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the file ends; a live camera goes on until it is closed."""
        while not self._closed.is_set():
            frame = self.read_frame()
            if frame is None:
                return
            yield frame

    def close(self) -> None:
        """Stop reading and give the camera back."""
        self._closed.set()
        self.running = False
        with self._arrived:
            self._arrived.notify_all()
        if not self.live:
            self._file.close()
        for thread in (self._grabber, self._publisher):
            if thread is not None and thread is not threading.current_thread():
                thread.join(1.0)  # a wedged one is left behind: it is a daemon

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _next_of_file(self) -> Frame | None:
        if self._error:
            raise self._error
        image = None if self._closed.is_set() else self._file.read()
        if image is None:
            return None
        self._last_read += 1
        return Frame(self._turned(image), self._last_read, self._last_read / (self.fps or 30.0), time.monotonic())

    def _turned(self, image: np.ndarray) -> np.ndarray:
        return image if self._flip is None else cv2.flip(image, self._flip)

    def _wait_for_newer(self, wait: float | None) -> Frame:
        """Wait for a frame that was not read yet, or for what went wrong; restart a grabber that hangs."""
        give_up = float("inf") if wait is None else time.monotonic() + wait
        while True:
            with self._arrived:
                self._arrived.wait_for(
                    lambda: self._is_newer() or self._error or self._closed.is_set(),
                    max(0.0, min(0.25, give_up - time.monotonic())),
                )
                if self._is_newer():
                    return self._newest
            if self._error:
                raise self._error
            if self._closed.is_set():
                raise CameraError(f"camera {self.source} is closed")
            now = time.monotonic()
            if now >= give_up:
                raise CameraTimeout(f"camera {self.source} sent nothing for {wait:g} s")
            if self._newest is not None and not self.lost and now - self._heard > self._stall:
                self._start_grabber(lost=True)  # the old one hangs inside its driver

    def _is_newer(self) -> bool:
        return self._newest is not None and self._newest.number > self._last_read

    def _start_grabber(self, lost: bool = False) -> None:
        self._heard = time.monotonic()
        self._grabber = threading.Thread(target=self._grab, args=(lost,), name=f"grab {self.source}", daemon=True)
        self._grabber.start()

    def _grab(self, lost: bool) -> None:
        """Keep the newest frame: the grabber thread, the only one that touches a live source."""
        me, source = threading.current_thread(), None
        try:
            source = self._reopen() if lost else self._opener(self.source, self._wanted)
            self.fps = source.fps if source is not None else 0.0
            while not self._closed.is_set() and source is not None:
                image = source.read()
                if self._grabber is not me:
                    return  # it hung for so long that another one took over
                if image is not None:
                    self._keep(self._turned(image), time.monotonic())
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
        self._first = now if self._first is None else self._first
        number = 0 if self._newest is None else self._newest.number + 1
        frame = Frame(image, number, now - self._first, now)
        if self.tap is not None:
            self.tap(frame)
        with self._arrived:
            self._heard, self._newest = now, frame
            self._arrived.notify_all()

    def _reopen(self) -> Source | None:
        """Open a lost camera again, however long that takes; None when the camera was closed meanwhile."""
        self.lost = True
        print(f"camera {self.source}: lost, opening it again", file=sys.stderr, flush=True)
        if time.monotonic() - self._opened > 10.0:  # one that breaks at once each time is asked less and less often
            self._pause = 0.25
        while not self._closed.wait(self._pause):
            self._pause = min(2 * self._pause, 4.0)
            try:
                source = self._opener(self.source, self._wanted)
            except CameraError:
                continue
            else:
                self._opened = time.monotonic()
                print(f"camera {self.source}: back", file=sys.stderr, flush=True)
                self.lost, self._heard = False, time.monotonic()
                return source
        return None

    @traitlets.observe("running")
    def _publish(self, change) -> None:
        if change.new:
            self._publisher = threading.Thread(target=self._push, name=f"publish {self.source}", daemon=True)
            self._publisher.start()

    def _push(self) -> None:
        """Hand each frame to the observers of `value`; an error ends it and is raised by the next `read`."""
        me = threading.current_thread()
        try:
            while self.running and self._publisher is me and (image := self.read()) is not None:
                self.value = image
        except Exception as error:
            if not self._closed.is_set():
                self._error = error
        finally:
            if self._publisher is me:  # else it was stopped and started again meanwhile
                self.running = False
