"""One class for every kind of camera. A live camera gives its newest image, a file gives every image.

with Camera("0") as camera:
    image = camera.read()           # uint8 [H, W, 3], BGR

camera.observe(show, "value")       # calls `show` with each new image, as NVIDIA's jetcam does
camera.running = True
"""

from __future__ import annotations

import threading
import time
import weakref
from functools import partial
from typing import Callable, Iterator

import numpy as np
import traitlets

from teachcam.collect.live_reader import Frame, LiveReader
from teachcam.collect.network_camera import hide_secrets
from teachcam.collect.sources import (
    CAMERA_DEFAULTS,
    FLIPS,
    CaptureSettings,
    FileSource,
    Source,
    flip_image,
    is_live,
    is_same_camera,
    open_source,
    source_path,
)
from teachcam.collect.video_file import FileClock
from teachcam.errors import CameraError, CameraTimeout

__all__ = ["Camera", "CameraError", "CameraTimeout", "CaptureSettings", "Frame"]

UNCHANGED = "unchanged"  # the flip that `Camera.switch` leaves as it is


class _ImageTrait(traitlets.TraitType):
    """A trait that notifies at every assignment. Traitlets would compare the two images first, which is slow."""

    def set(self, obj, value):
        old, obj._trait_values[self.name] = obj._trait_values.get(self.name), value
        obj._notify_trait(self.name, old, value)


class Camera(traitlets.HasTraits):
    """A camera of any kind. The kind depends on the name of the source:

    `0`, `/dev/video0`                  a USB camera
    `/dev/v4l/by-id/...`, any link      the same: these names stay when cameras are plugged in another order
    `csi:0`                             a Jetson's CSI camera, through GStreamer
    `gst:PIPELINE`                      any GStreamer pipeline
    `http://...`, `rtsp://...`          a network stream (also rtsps, rtmp, udp, ...), or the address of one picture
    `clip.mp4`, `folder/`, `image.jpg`  files: every image in order, then the end
    `synthetic[:LABEL][?seed=N]`        drawn hands, see collect/synthetic.py

    A thread reads a live camera all the time and keeps only the newest image. So a slow reader never gets an old one,
    and no queue grows. If the camera breaks or hangs, the thread opens it again, and logs that.

    Attributes:
        value: The newest image, for observers, while `running` is True.
        running: Set it to True to update `value` from a thread, and to False to stop that.
        source: The name of the source, without the passwords that it may contain.
        full_source: The same with the passwords, to open it again. Do not show it.
        flip: How every image is turned: "horizontal", "vertical", "180", or None.
        live: True for a camera, False for files.
        dropped: How many images of a live camera were never read, because newer ones came.
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
        _check_flip(flip)
        self.full_source = str(source)
        self.live = is_live(self.full_source)
        is_file = not self.live and source_path(self.full_source).exists()
        self.source = self.full_source if is_file else hide_secrets(self.full_source)
        self.flip, self.dropped = flip, 0
        self._settings, self._timeout, self._opener = settings, timeout, opener
        self._switch_lock = threading.Lock()
        self._last_read = -1  # the number of the last frame that `read_frame` returned
        self._error: Exception | None = None  # of an observer
        self._on_frame: Callable[[Frame], object] | None = None
        self._closed = threading.Event()
        self._publishers: list[threading.Thread] = []  # the last one is at work while `running` is True
        open_again = self._opener_of(self.full_source)
        reader = LiveReader(self.source, open_again, flip, stall, self._closed) if self.live else None
        self._reader, self._source = reader, reader or open_again(flip)
        # Called by `close`, when the camera is garbage-collected, and before Python ends, which aborts if a thread is
        # inside OpenCV at that moment.
        self._release = weakref.finalize(self, _release, self._closed, self._publishers, self._source)
        if reader is None:
            self._clock = FileClock(self._source.fps)
            return
        try:
            reader.wait_for_frame(-1, timeout)  # so that a camera that does not answer is an error here
        except CameraTimeout:
            self.close()
            raise _sent_nothing(self.source, timeout) from None

    @property
    def fps(self) -> float:
        """The rate that the source states, in images per second. 0 if it states none."""
        return self._source.fps

    @property
    def reconnecting(self) -> bool:
        """True while a lost camera is being opened again."""
        return self._reader is not None and self._reader.reconnecting

    def switch(self, source: str | int | None = None, flip: str | None = UNCHANGED) -> None:
        """Read another live camera from now on, or turn the images in another way.

        Frame numbers and times go on. When this returns, the newest frame is one of the other camera. Who waits for a
        frame meanwhile goes on waiting. The camera that is in use is not opened twice: only its flip changes.

        Args:
            source: The name of the other camera. None means the same camera. The requested size and rate stay.
            flip: "horizontal", "vertical" or "180", or None to turn nothing. By default it stays as it is.

        Raises:
            CameraError: One of the two is not a live camera, or this one is closed; or the other one does not open, or
                sends nothing within `timeout`. Then the camera before is opened again.
        """
        name = self.full_source if source is None else str(source)
        shown = hide_secrets(name)
        if self._reader is None or not is_live(name):
            camera = self.source if self._reader is None else shown
            raise CameraError(f"{camera!r} is not a live camera: only live cameras can be switched")
        if self._closed.is_set():
            raise CameraError(f"camera {self.source} is closed")
        with self._switch_lock:
            flip = self.flip if flip == UNCHANGED else _check_flip(flip)
            if is_same_camera(name, self.full_source):
                name, shown = self.full_source, self.source
                if flip == self.flip or self._reader.set_flip(flip):
                    self.flip = flip
                    return
            try:
                self._reader.switch(shown, self._opener_of(name), flip, self._timeout)
            except CameraTimeout:
                raise _sent_nothing(shown, self._timeout) from None
            self.full_source, self.source, self.flip = name, shown, flip

    def _opener_of(self, name: str) -> partial:
        """Return a function that opens a source with a flip. It does not hold this camera, which may be released."""
        return partial(_open, self._opener, name, self._settings)

    def on_each_frame(self, function: Callable[[Frame], object] | None) -> None:
        """Call a function with every frame: of a live camera, also with those that nobody reads.

        Args:
            function: The thread that reads the camera or the file calls it, so it must be quick. None ends the calls.
        """
        self._on_frame = function
        if self._reader is not None:
            self._reader.on_frame = function

    @property
    def metadata(self) -> dict[str, object]:
        """The camera's part of a session's line in sessions.jsonl: its source, flip and requested rate."""
        chosen = {"flip": self.flip, "camera_fps": self._settings.fps}
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
        if self._error:
            raise self._error
        source, last = self._source, self._last_read
        frame = source.wait_for_frame(last, wait) if isinstance(source, LiveReader) else self._read_file(source)
        if frame is not None:
            self.dropped += frame.number - self._last_read - 1
            self._last_read = frame.number
        return frame

    def _read_file(self, source: FileSource) -> Frame | None:
        image = None if self._closed.is_set() else source.read()
        if image is None:
            return None
        image = flip_image(image, self.flip)
        number, seconds = self._last_read + 1, self._clock(source.time)
        frame = Frame(image, number, seconds, time.monotonic(), source.file)
        if self._on_frame is not None:
            self._on_frame(frame)
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
        self.running = False
        self._release()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # Publishing to observers

    @traitlets.observe("running")
    def _start_publisher(self, change) -> None:
        if change.new:
            publisher = threading.Thread(target=self._publish, name=f"publish {self.source}", daemon=True)
            self._publishers[:] = [publisher]
            publisher.start()

    def _publish(self) -> None:
        """Assign each image to `value`. An error ends this, and the next `read` raises it."""
        me = threading.current_thread()
        try:
            while self.running and self._publishers == [me] and (image := self.read()) is not None:
                self.value = image
        except Exception as error:
            if not self._closed.is_set():
                self._error = error
        finally:
            if self._publishers == [me]:  # not if `running` was set to False and True again meanwhile
                self.running = False


def _check_flip(flip: str | None) -> str | None:
    if flip is not None and flip not in FLIPS:
        raise CameraError(f"flip {flip!r} is unknown: use one of {', '.join(FLIPS)}")
    return flip


def _open(opener: Callable[[str, CaptureSettings], Source], name: str, settings: CaptureSettings, flip: str | None):
    return opener(name, settings._replace(flip=flip))


def _sent_nothing(name: str, seconds: float) -> CameraError:
    return CameraError(f"camera {name} sent nothing for {seconds:g} s: is it connected, and not in use by a program?")


def _release(closed: threading.Event, publishers: list[threading.Thread], source: Source | LiveReader) -> None:
    """End a camera's threads, and release its device or file. A function, because the camera itself may be gone."""
    closed.set()
    for thread in publishers:
        if thread is not threading.current_thread():
            thread.join(1.0)
    source.close()
