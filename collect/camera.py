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

import numpy as np
import traitlets

from collect.sources import CameraError, Source, is_live, open_source

__all__ = ["Camera", "CameraError", "Frame"]


class Frame(NamedTuple):
    """One frame, and when it was taken."""

    image: np.ndarray  # uint8 [H, W, 3], BGR
    number: int  # counts every frame the source gave, from 0; a gap is frames dropped
    time: float  # seconds since the source's first frame: by the clock for a camera, by its frame rate for a file
    captured: float  # time.monotonic() when it was grabbed, or read from its file


class _Image(traitlets.TraitType):
    """A trait that always notifies: comparing a frame with the one before costs more than handing it on."""

    def set(self, obj, value):
        old, obj._trait_values[self.name] = obj._trait_values.get(self.name), value
        obj._notify_trait(self.name, old, value)


class Camera(traitlets.HasTraits):
    """A camera, opened by what `source` names:

    `0`, `/dev/video0`                      a USB camera
    `http://...`, `rtsp://...`              a stream
    `clip.mp4`, `folder/`, `image.jpg`      files: every frame in order, then the end
    `synthetic[:LABEL][?seed=N&fps=F&size=WxH]`   drawn hands, see `collect.synthetic`

    A live camera is read by a thread that keeps its newest frame only, so that no reader ever sees a stale one
    and nothing queues up. A stream that breaks is opened again, with a growing pause, and that is said on
    stderr. Files are read frame by frame, none dropped.

    Raises CameraError where nothing answers, and wherever a frame does not come within `timeout` seconds.
    """

    value = _Image(None, allow_none=True)
    running = traitlets.Bool(False)

    def __init__(self, source: str | int = 0, *, timeout: float = 10.0, opener: Callable[[str], Source] = open_source):
        super().__init__()
        self.source = str(source)
        self.timeout = timeout
        self.dropped = 0  # frames of a live camera that came and went unread
        self.live = is_live(self.source)
        self._opener = opener
        self._closed = threading.Event()
        self._arrived = threading.Condition()
        self._newest: Frame | None = None
        self._last_read = -1
        self._error: Exception | None = None
        if self.live:
            threading.Thread(target=self._grab, name=f"grab {self.source}", daemon=True).start()
            self._wait_for_newer()  # so that a camera that does not answer is known now
        else:
            self._file = opener(self.source)

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR: of a live camera the newest, waiting for one not yet read.

        None at the end of a file.
        """
        frame = self.read_frame()
        return None if frame is None else frame.image

    def read_frame(self) -> Frame | None:
        """Return what `read` does, with its number and times."""
        if not self.live:
            return self._next_of_file()
        frame = self._wait_for_newer()
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
        if not self.live:
            self._file.close()
        with self._arrived:
            self._arrived.notify_all()

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
        return Frame(image, self._last_read, self._last_read / (self._file.fps or 30.0), time.monotonic())

    def _wait_for_newer(self) -> Frame:
        """Wait for a frame that was not read yet, or for what went wrong."""

        def newer() -> bool:
            return self._newest is not None and self._newest.number > self._last_read

        with self._arrived:
            self._arrived.wait_for(lambda: newer() or self._error or self._closed.is_set(), self.timeout)
            if newer():
                return self._newest
        if self._error:
            raise self._error
        if self._closed.is_set():
            raise CameraError(f"camera {self.source} is closed")
        raise CameraError(f"camera {self.source} sent nothing for {self.timeout:g} s")

    def _grab(self) -> None:
        """Keep the newest frame: the grabber thread, the only one that touches a live source."""
        source = None
        try:
            source = self._opener(self.source)
            number, first = 0, None
            while not self._closed.is_set():
                image = source.read()
                if image is None:
                    source.close()
                    source = self._reopen()
                    continue
                now = time.monotonic()
                first = now if first is None else first
                with self._arrived:
                    self._newest = Frame(image, number, now - first, now)
                    self._arrived.notify_all()
                number += 1
        except Exception as error:
            with self._arrived:
                self._error = error
                self._arrived.notify_all()
        finally:
            if source is not None:
                source.close()

    def _reopen(self) -> Source:
        print(f"camera {self.source}: lost, opening it again", file=sys.stderr)
        pause = 0.25
        while not self._closed.wait(pause):
            try:
                source = self._opener(self.source)
            except CameraError:
                pause = min(2 * pause, 8.0)
            else:
                print(f"camera {self.source}: back", file=sys.stderr)
                return source
        raise CameraError(f"camera {self.source} is closed")

    @traitlets.observe("running")
    def _publish(self, change) -> None:
        if change.new:
            threading.Thread(target=self._push, name=f"publish {self.source}", daemon=True).start()

    def _push(self) -> None:
        """Hand each frame to the observers of `value`; an error ends it and is raised by the next `read`."""
        try:
            while self.running and (image := self.read()) is not None:
                self.value = image
        except Exception as error:
            self._error = error
        finally:
            self.running = False
