"""Cameras in the network: streams (MJPEG, RTSP, ...), and addresses of a single picture."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import time
import urllib.parse
import urllib.request

import cv2
import numpy as np

from teachcam.collect.video_capture import VideoCaptureSource
from teachcam.errors import CameraError
from teachcam.images import decode_image

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")  # FFmpeg reads these
TIMEOUT = 5  # seconds that a camera may take to answer, or to send the next image
SNAPSHOT_FPS = 5.0  # pictures to fetch per second from the address of a single picture
SECRET_NAMES = "user|usr|login|pass|pwd|pw|token|key|auth|secret|sig"  # names that begin so
MAX_PICTURE_BYTES, MAX_LINE = 64 << 20, 1 << 16
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM")  # how files of JPEG, PNG, WebP and BMP begin


class NetworkCamera(VideoCaptureSource):
    """A stream that FFmpeg reads. It scales every image to the size of the first one."""

    def __init__(self, url: str):
        milliseconds = 1000 * TIMEOUT
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds)
        super().__init__(url, cv2.CAP_FFMPEG, timeouts)
        if not self.opened:
            raise CameraError(f"no stream at {hide_secrets(url)}: check that the camera is on and the address is right")


class MjpegCamera:
    """A stream of JPEG pictures over HTTP (multipart/x-mixed-replace), each in its own size: phones turn over."""

    live = True
    fps = 0.0  # such a stream states no rate

    def __init__(self, response: http.client.HTTPResponse):
        """Read nothing yet.

        Args:
            response: The answer to the request, whose body has not been read.
        """
        self._response = response
        self._boundary = response.headers.get_boundary("").strip("-").encode()

    def read(self) -> np.ndarray | None:
        """Return the next picture, uint8 [H, W, 3] BGR. None if the stream ended. Broken pictures are left out."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while (content := self._read_part()) is not None:
                with contextlib.suppress(ValueError, cv2.error):
                    return decode_image(content)
        return None

    def _read_part(self) -> bytes | None:
        """Return the content of the next part, or None at the end of the stream."""
        length = None
        while not self._is_boundary(line := self._response.readline(MAX_LINE)):
            if not line:
                return None
        while line := self._response.readline(MAX_LINE).strip():  # the part's headers, up to an empty line
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and value.strip().isdigit():
                length = min(int(value), MAX_PICTURE_BYTES)
        if length is not None:
            return self._response.read(length)
        content = b""
        while len(content) < MAX_PICTURE_BYTES and b"\xff\xd9" not in content[-MAX_LINE:]:  # the end of a JPEG
            line = self._response.readline(MAX_LINE)
            if not line or self._is_boundary(line):
                break
            content += line
        return content

    def _is_boundary(self, line: bytes) -> bool:
        return line.startswith(b"--") and line.strip().strip(b"-") == self._boundary

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class SnapshotCamera:
    """The address of a single picture, which many network cameras have. The picture is fetched again and again."""

    live = True

    def __init__(self, url: str, fps: float | None = None):
        """Fetch nothing yet.

        Args:
            url: http:// or https://, with `user:password@` if the camera asks for them.
            fps: Pictures to fetch per second.
        """
        self.fps = fps or SNAPSHOT_FPS
        self._url = url
        self._due = time.monotonic()

    def read(self) -> np.ndarray | None:
        """Wait until the next picture is due, and fetch it. None if the camera did not send one."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic() - 1 / self.fps) + 1 / self.fps
        try:
            with _request(self._url) as response:
                return decode_image(response.read(MAX_PICTURE_BYTES))
        except (OSError, ValueError, cv2.error):
            return None

    def close(self) -> None:
        """Do nothing: no connection is kept open."""


def open_network_camera(url: str, fps: float | None) -> NetworkCamera | MjpegCamera | SnapshotCamera:
    """Open a stream, or the address of a single picture.

    Args:
        url: With one of SCHEMES.
        fps: Pictures to fetch per second from the address of a single picture. A stream has its own rate.

    Raises:
        CameraError: Nothing answers there.
    """
    if url.startswith(("http://", "https://")):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):  # FFmpeg then says what is wrong
            response = _request(url)
            kind = response.headers.get_content_type()
            if kind.startswith("multipart/"):
                return MjpegCamera(response)
            with response:
                is_picture = kind.startswith("image/") or response.read(4).startswith(PICTURES)
            if is_picture:
                return SnapshotCamera(url, fps)
    return NetworkCamera(url)


def hide_secrets(text: str) -> str:
    """Replace what may be a password in the addresses and GStreamer pipelines in a text by ***.

    That is the part before an @, every value in a query, and every value of a name such as `password`.
    """
    text = re.sub(r"(\w://)[^\s\"']*@", r"\1***@", text)
    text = re.sub(r"(\w://[^\s?\"']*\?)([^\s\"']*)", lambda match: match[1] + _hide_values(match[2]), text)
    return re.sub(rf"(?i)((?:{SECRET_NAMES})[\w-]*=)(\"[^\"]*\"|'[^']*'|[^\s&;/\"']+)", r"\1***", text)


def _hide_values(query: str) -> str:
    """Replace the values in a query, as in `width=640&pwd=x`."""
    return re.sub(r"([^&;=]*=)?[^&;]*", lambda part: f"{part[1] or ''}***" if part[0] else "", query)


def _request(url: str) -> http.client.HTTPResponse:
    """Open an address. Its user and password are sent if the camera asks for them. Raises OSError or ValueError."""
    parts = urllib.parse.urlsplit(url)
    bare_url = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        passwords.add_password(None, bare_url, user, password)
    # Cameras sign their own certificates. FFmpeg accepts these as well.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    return opener.open(bare_url, timeout=TIMEOUT)
