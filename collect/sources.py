"""The kinds of camera: one class each, which all give their images in the same way.

To add a new kind of camera:

1. Write a class with the attributes and methods of `Source`. Raise CameraError in `__init__` if it does not open.
2. Choose how users name it, as in `mycam:0`. Add a line to `open_source`, and, if it is live, to `is_live`.
3. Name it where users read of cameras: in the docstring of `Camera` (collect/camera.py), in the error of `open_source`,
   in the help of --camera (collect/camera_options.py), and in docs/recording.md.
4. If it can be found without being named, let `find_cameras` try it (collect/probe.py).

`Camera` adds the rest for every kind: the thread that reads, opening it again, flipping.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from teachcam.collect.gstreamer import csi_pipeline, open_gstreamer
from teachcam.collect.network_camera import SCHEMES, hide_secrets, open_network_camera
from teachcam.collect.synthetic import SyntheticCamera
from teachcam.collect.video_capture import VideoCaptureSource
from teachcam.collect.video_file import VideoFile
from teachcam.decoder_messages import call_decoder
from teachcam.errors import CameraError, UnreadableImage
from teachcam.files import expand
from teachcam.images import IMAGE_SUFFIXES, describe_other_files, is_image, read_image, visible_files

logger = logging.getLogger(__name__)

URLS = tuple(f"{scheme}://" for scheme in SCHEMES)


class CaptureSettings(NamedTuple):
    """The image size and rate to request from a camera. With None the camera's default stays."""

    width: int | None = None  # pixels
    height: int | None = None  # pixels
    fps: float | None = None  # images per second
    flip: str | None = None  # for a camera that can flip its images itself


CAMERA_DEFAULTS = CaptureSettings()
FLIPS = {"horizontal": 1, "vertical": 0, "180": -1}  # how images can be turned, and the codes of cv2.flip


class Source(Protocol):
    """The interface of each kind of camera, as `Camera` uses it. Sources of files have `FileSource`'s in addition."""

    live: bool  # True if images are lost unless they are read in time; False for files
    fps: float  # images per second, 0 if unknown

    def read(self) -> np.ndarray | None:
        """Wait for the next image, uint8 [H, W, 3] BGR. None at the end of a file, or if a live camera broke."""

    def close(self) -> None:
        """Release the device or file."""


class FileSource(Source, Protocol):
    """The interface of a video file or a folder of images. Both values are of the image that was read last."""

    time: float | None  # the file's own timestamp, in seconds
    file: str | None  # the name of the image's file, in a folder of images


def is_live(name: str) -> bool:
    """Return whether a name is that of a live camera. It is not opened. Other names are files or folders."""
    return usb_device(name) is not None or _is_synthetic(name) or name.lower().startswith(("csi:", "gst:", *URLS))


def open_source(name: str, settings: CaptureSettings = CAMERA_DEFAULTS) -> Source:
    """Open a camera, a video or a folder of images.

    Args:
        name: Names the source as in the table of `Camera`.
        settings: Size and rate to request. USB, CSI, GStreamer and synthetic cameras obey.

    Raises:
        CameraError: It does not exist or does not open.
    """
    if _is_synthetic(name):
        return SyntheticCamera(name[len("synthetic") :].lstrip(":"), *settings[:3])
    device = usb_device(name)
    if device is not None:
        return UsbCamera(device, settings)
    if name.lower().startswith("csi:"):
        return open_gstreamer(csi_pipeline(name, settings), CAMERA_DEFAULTS, flipped=True)
    if name.lower().startswith("gst:"):
        return open_gstreamer(name[len("gst:") :], settings)
    if name.lower().startswith(URLS):
        return open_network_camera(name, settings.fps)
    path = source_path(name)
    if name and path.is_dir():
        return ImageFolder(path)
    if path.is_file():
        return ImageFolder(path) if path.suffix.lower() in IMAGE_SUFFIXES else VideoFile(path)
    if re.match(r"\w+://", name):
        raise CameraError(
            f"{hide_secrets(name)} can't be opened: an address must begin with {', '.join(URLS)} or file://"
        )
    raise CameraError(
        f"there is no camera, file or folder named {hide_secrets(name)!r}: use a number, /dev/videoN, csi:N, "
        "gst:PIPELINE, http://..., rtsp://..., a video file, a folder of images, or synthetic"
    )


def is_same_camera(name: str, other: str) -> bool:
    """Return whether two names are of one camera, as `0` and `/dev/video0` are. Nothing is opened."""
    device = usb_device(name)
    return name == other if device is None else device == usb_device(other)


def flip_image(image: np.ndarray, flip: str | None) -> np.ndarray:
    """Return an image, uint8 [H, W, 3], that is turned as `flip` says: one of FLIPS, or None."""
    return image if flip is None else cv2.flip(image, FLIPS[flip])


def source_path(name: str) -> Path:
    """Return the path of a file or folder that may begin with `~` or `file://`."""
    if name.lower().startswith("file://"):
        with contextlib.suppress(ValueError):  # brackets without an address: there is no file of that name either
            name = urllib.request.url2pathname(urllib.parse.urlsplit(name).path)
    return expand(name)


class UsbCamera(VideoCaptureSource):
    """A camera of this machine."""

    def __init__(self, device: int | str, settings: CaptureSettings):
        """Open a camera.

        Args:
            device: Its index, or the path of its device file (Linux).
            settings: Size and rate to request.
        """
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        super().__init__(device, backend)
        if not self.opened:
            devices = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise CameraError(
                f"camera {device} does not open; cameras here: {', '.join(devices) or 'none'}. "
                "Choose another with --camera, or try --camera synthetic"
            )
        if settings.width or settings.height:
            # USB 2 is too slow for uncompressed 720p at 30 FPS. Most cameras send JPEG on request.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        requested = {
            cv2.CAP_PROP_FRAME_WIDTH: settings.width,
            cv2.CAP_PROP_FRAME_HEIGHT: settings.height,
            cv2.CAP_PROP_FPS: settings.fps,
            cv2.CAP_PROP_BUFFERSIZE: 1,  # of the driver: every further image in it would be an old one
        }
        for name, value in requested.items():
            if value:
                self._capture.set(name, value)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 0.0
        self._name = f"camera {device}"

    def _read_capture(self) -> np.ndarray | None:
        if not self._capture.grab():  # waits for the picture; `retrieve` decodes it
            return None
        return call_decoder(self._capture.retrieve, self._name, repeatable=False)[1]


class ImageFolder:
    """An image file, or a folder with its subfolders: every image, in natural order. What is left out is logged.

    Attributes:
        file: The path of the image that was read last, from the folder.
    """

    live = False
    fps = 0.0  # images have no clock
    time = None

    def __init__(self, path: Path):
        """Read the first image.

        Args:
            path: Path of an image file or a folder.

        Raises:
            CameraError: There is no image that can be read.
        """
        files = [path] if path.is_file() else visible_files(path)
        left_out = describe_other_files(files)
        if left_out:
            logger.warning("left out of %s: %s", path, left_out)
        self._folder = path.parent if path.is_file() else path
        self._paths = iter([file for file in files if is_image(file)])
        self.file: str | None = None
        self._first: np.ndarray | None = None
        self._first = self.read()  # now, so that a folder without images is an error at once
        if self._first is None:
            raise CameraError(f"there is no readable image in {path}" + (f" ({left_out})" if left_out else ""))

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR. None after the last."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        for path in self._paths:
            try:
                image = read_image(path)
                self.file = path.relative_to(self._folder).as_posix()
                return image
            except UnreadableImage as error:
                logger.warning("skipped: %s", error)
        return None

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def usb_device(name: str) -> int | str | None:
    """Return the camera of this machine that a name stands for, or None for other names.

    Args:
        name: An index (`0`), or a path: `/dev/video0`, or a link to it, such as those in /dev/v4l/by-id.

    Returns:
        The camera's index, or the path of a device file with another name.
    """
    if name.isdecimal() and len(name) < 5:
        return int(name)
    try:
        path = os.path.realpath(expand(name))
    except ValueError:  # a zero byte
        return None
    unplugged = path.startswith("/dev/") and not Path(path).exists()
    if not unplugged and not _is_character_device(path):
        return None
    number = path[len("/dev/video") :]
    return int(number) if path.startswith("/dev/video") and number.isdecimal() else path


def _is_character_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _is_synthetic(name: str) -> bool:
    return name == "synthetic" or name.startswith(("synthetic:", "synthetic?"))
