"""Post the prediction to a web address when the label changes: `--post http://host/path`."""

from __future__ import annotations

import base64
import json
import logging
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from teachcam import __version__
from teachcam.cli import first_line
from teachcam.errors import UserError
from teachcam.images import encode_jpeg
from teachcam.live.sinks.base import FrameResult, ThreadedSink

if TYPE_CHECKING:
    import numpy as np

TIMEOUT = 3.0  # seconds for connecting, and again for the answer
MAX_QUEUED = 5  # label changes; when they are more, the oldest is dropped
JPEG_QUALITY = 80

logger = logging.getLogger(__name__)


def receiver_url(text: str) -> str:
    """Check the value of --post, for argparse. Raises UserError if it is not an address to post to.

    The message does not repeat the text, because an address may hold a secret.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isascii() or not text.isprintable() or " " in text:
        raise UserError("--post: give an address that begins with http:// or https://, with %20 for a space")
    if "@" in parts.netloc:
        raise UserError("--post: leave the user name and the password out of the address: they would not be sent")
    return text


class Webhook(ThreadedSink):
    """A sink that posts the prediction as JSON when the label changes, and for every image of a folder.

    The loop does not wait for the receiver. With a live camera, at most MAX_QUEUED label changes wait, the newest ones.
    A file's wait as long as the receiver works; once it has failed, they are dropped in the same way.

    A receiver that is slow, down or answers with an error is one warning, until it works again. A redirect is an
    error, too, because the body would be lost.

    Args:
        url: The address, as `receiver_url` returns it.
        live: True for a live camera.
        image: Add the picture as the field "image": a JPEG file in base64.
    """

    def __init__(self, url: str, live: bool, image: bool = False):
        self._url, self._with_image = url, image
        self._opener = build_opener(_NoRedirect)
        self._last_label: str | None = None
        self._failing, self._closing = False, False
        super().__init__(live, MAX_QUEUED, keep_newest=True)

    def _name(self) -> str:
        parts = urlsplit(self._url)
        return f"--post {parts.scheme}://{parts.netloc}"  # without the path, which may hold a secret

    def _prepare(self, result: FrameResult) -> tuple[dict[str, Any], np.ndarray | None] | None:
        label = result.prediction.label
        if label == self._last_label and result.frame.file is None:
            return None
        self._last_label = label
        return result.to_dict(), result.frame.image if self._with_image else None

    def _write(self, entry: tuple[dict[str, Any], np.ndarray | None]) -> None:
        content, image = entry
        if self._closing and self._failing:
            return
        if image is not None:
            content["image"] = base64.b64encode(encode_jpeg(image, JPEG_QUALITY)).decode()
        headers = {"Content-Type": "application/json", "User-Agent": f"teachcam/{__version__}"}
        try:
            with self._opener.open(Request(self._url, json.dumps(content).encode(), headers), timeout=TIMEOUT):
                pass  # the body of the answer does not matter
        except HTTPError as error:
            error.close()
            self._fail(f"it answered {error.code} {error.reason}")
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
            self._fail(getattr(cause, "strerror", None) or first_line(cause))
        else:
            if self._failing:
                logger.info(f"{self._name()}: works again")
            self._failing = False

    def _fail(self, reason: str) -> None:
        if not self._failing:
            logger.warning(
                f"warning: {self._name()}: {reason}; the live loop goes on, and the next label change is posted"
            )
        self._failing, self._live = True, True  # from now on no file waits for the receiver

    def close(self, stall_timeout: float = TIMEOUT + 1) -> None:
        """Post what is queued, unless the receiver fails. A receiver that does not answer is a warning."""
        self._closing = True
        try:
            super().close(stall_timeout)
        except UserError as error:
            logger.warning(f"warning: {error}")
        if self.dropped:
            logger.warning(f"{self._name()}: {self.dropped} label changes were not posted: the receiver is too slow")


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirect an error. urllib itself would follow it without the body."""

    def redirect_request(self, *_: Any) -> None:
        return None
