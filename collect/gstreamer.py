"""GStreamer cameras: a Jetson's CSI camera, and any pipeline.

The pipeline runs in GStreamer's own program, gst-launch-1.0, which sends its images through a pipe. So any OpenCV will
do: pip's is built without GStreamer. OpenCV's GStreamer is used where that program is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from typing import IO, TYPE_CHECKING, Callable

import cv2
import numpy as np

from teachcam.collect.network_camera import hide_secrets
from teachcam.collect.video_capture import VideoCaptureSource
from teachcam.errors import CameraError

if TYPE_CHECKING:
    from teachcam.collect.sources import CaptureSettings, Source

PROGRAM = "gst-launch-1.0"
START_TIMEOUT = 10.0  # seconds until the pipeline must know the size of its images
READ_TIMEOUT = 4.0  # seconds without an image, after which the pipeline is ended
PIPE_BYTES = 1 << 20  # the most that Linux allows to everybody: fewer turns between the two programs for an image
CSI_FLIPS = {None: 0, "180": 2, "horizontal": 4, "vertical": 6}  # nvvidconv's numbers
APPSINK = re.compile(r"!\s*appsink\b[^!]*$")
# Any pad of the last queue will do: once in 40 starts on a busy machine, the sink's own line was missing.
CAPS = re.compile(r"(fdsink|GstQueue:newest).*: caps = video/x-raw,.*")
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def open_gstreamer(pipeline: str, settings: CaptureSettings, flipped: bool = False) -> Source:
    """Start a pipeline.

    Args:
        pipeline: As gst-launch-1.0 takes it. A last `appsink` may be left out.
        settings: The size and rate to convert its images to.
        flipped: Whether it flips its images as the user wants.

    Raises:
        CameraError: There is no GStreamer, or the pipeline does not start.
    """
    if _has_program():
        return PipelineProcess(pipeline, settings, flipped)
    if opencv_has_gstreamer():
        return OpenCVPipeline(pipeline, flipped)
    raise CameraError(f"csi: and gst: cameras need {PROGRAM}: sudo apt install gstreamer1.0-tools")


def csi_pipeline(name: str, settings: CaptureSettings) -> str:
    """Return NVIDIA's GStreamer pipeline for a Jetson's CSI camera.

    Args:
        name: `csi:` and the number of the camera's port.
        settings: By default 1280x720 at 30 images per second, not flipped.
    """
    number = name[len("csi:") :] or "0"
    if not number.isdecimal():
        raise CameraError(f"there is no CSI camera {name!r}: use csi:0, csi:1, ...")
    width, height = settings.width or 1280, settings.height or 720
    rate = f"{round(settings.fps or 30)}/1"
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} ! "
        f"nvvidconv flip-method={CSI_FLIPS[settings.flip]} ! video/x-raw,format=BGRx ! "
        "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def has_gstreamer() -> bool:
    """Return whether GStreamer pipelines can run here."""
    return _has_program() or opencv_has_gstreamer()


def _has_program() -> bool:
    return os.name == "posix" and shutil.which(PROGRAM) is not None


def opencv_has_gstreamer() -> bool:
    """Return whether this OpenCV can run GStreamer pipelines itself."""
    return cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


class PipelineProcess:
    """A pipeline in a process of its own, which ends with this program, also if this program is killed.

    Attributes:
        fps: The rate that the pipeline states, in images per second. 0 if it states none.
        flipped: Whether it flips its images.
    """

    live = True

    def __init__(self, pipeline: str, settings: CaptureSettings, flipped: bool):
        """Start the process, and wait until it knows the size of its images. Raises CameraError."""
        self.flipped = flipped
        self._shown = hide_secrets(f"gst:{pipeline}")[len("gst:") :]
        self._messages: list[str] = []  # what went wrong, in GStreamer's words
        self._caps = ""  # the format of the images, in GStreamer's words
        self._knows_caps = threading.Event()
        read_end, write_end = os.pipe()
        _enlarge(write_end)
        try:
            self._process = subprocess.Popen(
                [PROGRAM, "-v", *_elements(pipeline, settings), "fdsink", f"fd={write_end}", "sync=false"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[write_end],
                env={**os.environ, "LC_ALL": "C", "GST_DEBUG_NO_COLOR": "1"},
                preexec_fn=_die_with_parent(),
            )
        except (OSError, ValueError) as error:
            os.close(read_end)
            raise CameraError(f"this GStreamer pipeline does not start: {self._shown} ({error})") from None
        finally:
            os.close(write_end)
        self._pipe = open(read_end, "rb", buffering=0)  # noqa: PTH123, SIM115  (a descriptor; closed in `close`)
        self._drainer = threading.Thread(
            target=self._read_messages, args=(self._process.stdout,), name=PROGRAM, daemon=True
        )
        self._drainer.start()
        self._knows_caps.wait(START_TIMEOUT)
        if not self._caps:
            self.close()
            reason = self._messages[-1] if self._messages else f"it sent nothing for {START_TIMEOUT:g} s"
            raise CameraError(f"this GStreamer pipeline does not start: {self._shown} ({reason})")
        self._width = int(_field(self._caps, "width", r"\d+"))
        self._height = int(_field(self._caps, "height", r"\d+"))
        self._row_bytes = -(-3 * self._width // 4) * 4  # GStreamer begins each row at a multiple of 4 bytes
        frames, _, seconds = _field(self._caps, "framerate", r"\d+/\d+").partition("/")
        self.fps = int(frames) / max(1, int(seconds or 1)) if frames else 0.0

    def read(self) -> np.ndarray | None:
        """Return the next image, uint8 [H, W, 3] BGR. None if the pipeline has ended or hangs."""
        rows = np.empty((self._height, self._row_bytes), np.uint8)
        unread = rows.data.cast("B")
        while len(unread):
            if not select.select([self._pipe], [], [], READ_TIMEOUT)[0]:
                self.close()
                return None
            count = self._pipe.readinto(unread)
            if not count:
                return None
            unread = unread[count:]
        return np.ascontiguousarray(rows[:, : 3 * self._width]).reshape(self._height, self._width, 3)

    def close(self) -> None:
        """End the pipeline. A second call does nothing."""
        self._pipe.close()  # a pipeline that is writing gets an error
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # so that it releases the camera
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drainer.join(1.0)

    def _read_messages(self, output: IO[bytes]) -> None:
        """Read what the program prints, until it ends: the format of the images, and errors."""
        with output:
            for line in iter(output.readline, b""):
                text = line.decode(errors="replace").strip()
                if CAPS.search(text) and not self._caps:
                    self._caps = text
                    self._knows_caps.set()
                elif text.startswith(("ERROR", "WARNING: erroneous")):
                    self._messages.append(hide_secrets(text.partition(": ")[2]))
        self._knows_caps.set()


class OpenCVPipeline(VideoCaptureSource):
    """A pipeline that OpenCV runs. It must end in an appsink."""

    def __init__(self, pipeline: str, flipped: bool):
        """Start it. Raises CameraError."""
        super().__init__(pipeline, cv2.CAP_GSTREAMER)
        self.flipped = flipped
        if not self.opened:
            shown = hide_secrets(f"gst:{pipeline}")[len("gst:") :]
            raise CameraError(f"this GStreamer pipeline does not start: {shown}")


def _elements(pipeline: str, settings: CaptureSettings) -> list[str]:
    """Return the arguments for gst-launch-1.0 that give BGR images of the wanted size, the newest one only."""
    size = {"width": settings.width, "height": settings.height}
    wanted = "".join(f",{name}={value}" for name, value in size.items() if value)
    wanted += f",framerate={round(settings.fps)}/1" if settings.fps else ""
    ending = f"{'videoscale ! videorate ! ' if wanted else ''}videoconvert ! video/x-raw,format=BGR{wanted} ! "
    ending += "queue name=newest leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 !"
    try:
        return shlex.split(f"{APPSINK.sub('', pipeline)} ! {ending}")
    except ValueError as error:
        raise CameraError(f"this GStreamer pipeline can't be read: {error}") from None


def _field(caps: str, name: str, pattern: str) -> str:
    """Return the value of a field in GStreamer's description of a format, or "" if it has none."""
    match = re.search(rf"\b{name}=\(\w+\)({pattern})", caps)
    return match[1] if match else ""


def _enlarge(pipe: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)  # Python 3.10 has the name


def _die_with_parent() -> Callable[[], object] | None:
    """Return what has Linux kill the process that calls it when the thread that started that process ends.

    It is looked up here: in a process between fork and exec, another thread's locks are held for ever.
    """
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
