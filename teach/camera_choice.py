"""The cameras that a page may choose from, and how their images are mirrored."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Iterator

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.probe import find_cameras
from teachcam.collect.quality import CameraHints
from teachcam.collect.sources import is_same_camera
from teachcam.errors import UserError
from teachcam.teach.recording import Recording

# The flip of a mirrored camera, by that of one that is not.
MIRRORED: dict[str | None, str | None] = {None: "horizontal", "180": "vertical"}
HINT_INTERVAL = 0.2  # seconds
NOT_MIRRORED = {mirrored: flip for flip, mirrored in MIRRORED.items()}


class CameraChoice:
    """Switches a camera to another one of a list, but not while it records. Any thread may call it.

    The list has the camera of the program's start, those that were found on this machine, and the synthetic one. No
    others: a page must not have the device open an address, a file or a pipeline.
    """

    def __init__(self, camera: Camera, recording: Recording):
        """Begin with one camera.

        Args:
            camera: An open live camera.
            recording: Records with the camera.
        """
        self._lock = threading.Lock()  # not that of the labels, for which the page would wait until a camera is open
        self._recording, self._hints, self._looked_at = recording, CameraHints(), 0.0
        self._camera, self._first = camera, camera.source
        self._full_sources = {"synthetic": "synthetic", camera.source: camera.full_source}  # by the name that is shown
        self._size = ""  # of the images, as a text

    @property
    def source(self) -> str:
        """The name of the camera that is in use, without passwords."""
        return self._camera.source

    @property
    def mirrored(self) -> bool:
        """Whether its images are mirrored."""
        return self._camera.flip in NOT_MIRRORED

    @property
    def hints(self) -> list[str]:
        """What should be better about its images."""
        return self._hints.newest

    def look(self, image: np.ndarray) -> None:
        """Take an image of the camera, uint8 [H, W, 3] BGR, for hints and its size, now and then."""
        now = time.monotonic()
        if now - self._looked_at > HINT_INTERVAL:
            self._looked_at = now
            self._hints(image)
            self._size = f", {image.shape[1]}x{image.shape[0]}"

    def find(self) -> list[dict[str, str]]:
        """Return the cameras to choose from, the one in use first. It takes seconds, because it opens the others.

        Returns:
            Of each the `source`, for `choose`, and a `text` to show.
        """
        texts = {self.source: self.source + self._size}
        with self._lock:
            found = find_cameras(in_use=self._camera.full_source)
        for info in found:
            texts[info.source] = f"{info.source}, {info.width}x{info.height}"
            self._full_sources[info.source] = info.source
        if not any(is_same_camera(self._first, source) for source in texts):
            texts[self._first] = self._first
        texts.setdefault("synthetic", "synthetic: drawn hands, needs no camera")
        return [{"source": source, "text": text} for source, text in texts.items()]

    def choose(self, source: str) -> None:
        """Use another camera. If it does not open, the one before stays in use.

        Raises:
            CameraError: It does not open or sends nothing.
            UserError: `find` did not list it, or a recording is going on.
        """
        with self._changing():
            if source not in self._full_sources:
                raise UserError(f"{source[:100]!r} is not in the list of cameras: look for cameras again")
            self._camera.switch(self._full_sources[source])

    def mirror(self, on: str) -> None:
        """Mirror the camera's images, left and right, or stop that.

        From then on they are recorded mirrored, as with `--flip horizontal`, and the live loop sees the same. So what
        is learned fits what is seen. Images that are recorded already stay as they are.

        Args:
            on: "yes" or "no".

        Raises:
            CameraError: The camera does not open in this way.
            UserError: It is neither, or a recording is going on.
        """
        if on not in ("yes", "no"):
            raise UserError('the camera can be mirrored with "yes" or "no"')
        with self._changing():
            if (on == "yes") != self.mirrored:
                self._camera.switch(flip=(MIRRORED if on == "yes" else NOT_MIRRORED)[self._camera.flip])

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock, self._recording.paused():
            yield
            self._hints = CameraHints()  # the old ones compare with the images before
