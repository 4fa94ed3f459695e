"""Cameras in the network: streams (MJPEG, RTSP, ...), and addresses of a single picture."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

import cv2
import numpy as np

from teachcam.collect.network_failure import TIMEOUT, ask_rtsp, describe_error, describe_sign, describe_status
from teachcam.collect.video_capture import VideoCaptureSource
from teachcam.errors import CameraError
from teachcam.images import decode_image

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")  # FFmpeg reads these
SNAPSHOT_FPS = 5.0  # pictures to fetch per second from the address of a single picture
SECRET_NAMES = "user|usr|login|pass|pwd|pw|token|key|auth|secret|sig"  # names that begin so
MAX_PICTURE_BYTES, MAX_LINE = 64 << 20, 1 << 16
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM")  # how files of JPEG, PNG, WebP and BMP begin


class NetworkCamera(VideoCaptureSource):
    """A stream that FFmpeg reads. It scales every image to the size of the first one."""

    def __init__(self, url: str, failure: str | None = None):
        """Open the stream.

        Args:
            url: Its address.
            failure: What an attempt without FFmpeg has found to be wrong. The error says it if FFmpeg fails, too.

        Raises:
            CameraError: It does not open.
        """
        milliseconds = 1000 * TIMEOUT
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds)
        super().__init__(url, cv2.CAP_FFMPEG, timeouts)
        if not self.opened:
            if url.startswith("rtsp://"):
                failure = ask_rtsp(url)
            raise _no_stream(url, failure or "check that the camera is on and the address is right")


class MjpegCamera:
    """A stream of JPEG pictures over HTTP (multipart/x-mixed-replace), each in its own size: phones turn over.

    Reads the boundary from the body, because many cameras declare a wrong one in Content-Type. FFmpeg, by OpenCV, does
    not: it scales every picture to the size of the first, misses a boundary inside a line, and ends at a damaged one.
    """

    live = True
    fps = 0.0  # such a stream states no rate

    def __init__(self, response: http.client.HTTPResponse, name: str | None = None):
        """Read nothing yet.

        Args:
            response: The answer to the request, whose body has not been read.
            name: The camera, for a warning of damaged pictures. None for no warning.
        """
        self._response = response
        self._name = name
        self._boundary = b""  # not known yet
        self._at_part = False  # whether a boundary was the last thing read

    def read(self) -> np.ndarray | None:
        """Return the next picture, uint8 [H, W, 3] BGR. None if the stream ended. Broken pictures are left out."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while (content := self._read_part()) is not None:
                with contextlib.suppress(ValueError):
                    return decode_image(content, self._name)
        return None

    def _read_part(self) -> bytes | None:
        """Return the content of the next part, or None at the end of the stream."""
        while not self._at_part:
            line = self._response.readline(MAX_LINE)
            if not line:
                return None
            if not self._boundary and line.startswith(b"--"):
                self._boundary = line.strip()
            self._at_part = self._boundary != b"" and line.strip() == self._boundary
        self._at_part, length = False, None
        while line := self._response.readline(MAX_LINE).strip():  # the part's headers, up to an empty line
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and re.fullmatch(rb"\s*[0-9]{1,12}\s*", value):
                length = min(int(value), MAX_PICTURE_BYTES)
        return self._read_to_boundary() if length is None else self._response.read(length)

    def _read_to_boundary(self) -> bytes:
        """Return what comes before the next boundary, which need not begin a line."""
        content = b""
        while len(content) < MAX_PICTURE_BYTES:
            line = self._response.readline(MAX_LINE)
            before, boundary, after = line.partition(self._boundary)
            content += before
            if not line or (boundary and not after.strip()):
                self._at_part = bool(line)
                break
            content += boundary + after
        return content

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class SnapshotCamera:
    """The address of a single picture, which many network cameras have. The picture is fetched again and again."""

    live = True

    def __init__(self, url: str, fps: float | None = None):
        """Fetch the first picture.

        Args:
            url: Address with http:// or https://, and with `user:password@` if the camera asks for them.
            fps: Pictures to fetch per second.

        Raises:
            CameraError: What comes from there is no picture.
        """
        self.fps = fps or SNAPSHOT_FPS
        self._url = url
        self._due = time.monotonic()
        if self.read() is None:
            raise CameraError(f"{hide_secrets(url)} sends no picture that can be read: check the address")

    def read(self) -> np.ndarray | None:
        """Wait until the next picture is due, and fetch it. None if the camera did not send one."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic() - 1 / self.fps) + 1 / self.fps
        try:
            with _request(self._url) as response:
                return decode_image(response.read(MAX_PICTURE_BYTES), f"camera {hide_secrets(self._url)}")
        except (OSError, ValueError, http.client.HTTPException):
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
    scheme, _, rest = url.partition("://")
    url, failure = f"{scheme.lower()}://{rest}", None
    if url.startswith(("http://", "https://")):
        try:
            response = _request(url)
            kind, begin = response.headers.get_content_type(), response.peek(64)[:64].lstrip()
            if kind.startswith("multipart/") or begin.startswith(b"--"):  # some call a stream image/jpeg
                return MjpegCamera(response, f"camera {hide_secrets(url)}")
            response.close()
            if kind.startswith("image/") or begin.startswith(PICTURES):
                return SnapshotCamera(url, fps)
            failure = "check the path: " + ("it sends a web page" if kind == "text/html" else "it sends no picture")
        except urllib.error.HTTPError as error:
            error.close()
            raise _no_stream(url, describe_status(error.code, url)) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            failure = describe_error(error)
            if failure:
                raise _no_stream(url, failure) from None
    return NetworkCamera(url, failure)


def _no_stream(url: str, failure: str) -> CameraError:
    """Return the error of a camera that gives no picture."""
    sign = describe_sign(url)
    return CameraError(f"no stream at {hide_secrets(url)}: {failure}{'; ' + sign if sign else ''}")


def hide_secrets(name: str) -> str:
    """Replace what may be a password in the name of a camera by ***.

    In an address that is all before an @, every value, and what follows a #. In a GStreamer pipeline it is the same in
    each word, and every value of a property such as `user-pw`.
    """
    if name.lower().startswith("gst:"):
        value = r"(\"(?:\\.|[^\"\\])*\"|'[^']*'|\S+)"
        name = re.sub(rf"(?i)((?:{SECRET_NAMES})[\w-]*\s*=\s*){value}", r"\1***", name)
        return re.sub(r"\w+://(\S*@)?[^\s\"']*", lambda address: _hide_in_address(address[0]), name)
    return _hide_in_address(name) if re.match(r"\s*[\w+.-]+:/|.*@", name, re.DOTALL) else name


def _hide_in_address(address: str) -> str:
    before, at, after = address.rpartition("@")
    if at:
        scheme = re.match(r"[^/@]*?:/+|", before)
        address = f"{scheme[0] if scheme else ''}***@{after}"
    address = re.sub(r"#.*", "#***", address, flags=re.DOTALL)
    path, question, query = address.partition("?")
    path = re.sub(r"([^/;&=]+=)[^/;&]*", r"\1***", path)
    hidden = re.sub(r"([^&;=]*=)?[^&;]*", lambda part: f"{part[1] or ''}***" if part[0] else "", query)
    return path + question + hidden


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
        _RefusalCloser(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    return opener.open(bare_url, timeout=TIMEOUT)


class _RefusalCloser(urllib.request.BaseHandler):
    """Closes a connection on which the camera asked for a password, before the next one: some let only one in."""

    handler_order = 480  # before the handlers of passwords

    def http_error_401(self, request: object, response: http.client.HTTPResponse, *_: object) -> None:
        response.close()
