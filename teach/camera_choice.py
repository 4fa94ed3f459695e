"""The cameras that a page may choose from, and how their images are mirrored."""

from __future__ import annotations

from teachcam.collect.camera import Camera
from teachcam.collect.probe import find_cameras
from teachcam.collect.sources import is_same_camera
from teachcam.errors import UserError

MIRRORED = {None: "horizontal", "180": "vertical"}  # the flip of a mirrored camera, by that of one that is not
NOT_MIRRORED = {mirrored: flip for flip, mirrored in MIRRORED.items()}


class CameraChoice:
    """Switches a camera to another one of a list.

    The list has the camera of the program's start, those that were found on this machine, and the synthetic one. No
    others: a page must not have the device open an address, a file or a pipeline.
    """

    def __init__(self, camera: Camera):
        """Begin with one camera.

        Args:
            camera: An open live camera.
        """
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

    def note_size(self, width: int, height: int) -> None:
        """Take note of the size of the camera's images, in pixels."""
        self._size = f", {width}x{height}"

    def find(self) -> list[dict[str, str]]:
        """Return the cameras to choose from, the one in use first. It takes seconds, because it opens the others.

        Returns:
            Of each the `source`, for `choose`, and a `text` to show.
        """
        texts = {self.source: self.source + self._size}
        for info in find_cameras(in_use=self._camera.full_source):
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
            UserError: `find` did not list it.
        """
        if source not in self._full_sources:
            raise UserError(f"{source[:100]!r} is not in the list of cameras: look for cameras again")
        self._camera.switch(self._full_sources[source])

    def mirror(self, on: bool) -> None:
        """Mirror the camera's images, left and right, or stop that. Raises CameraError."""
        if on != self.mirrored:
            self._camera.switch(flip=(MIRRORED if on else NOT_MIRRORED)[self._camera.flip])
