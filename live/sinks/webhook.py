"""Post the prediction to a web address when the label changes: `--post http://host/path`."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import queue
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple
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

    Entry = Tuple[Dict[str, Any], Optional[np.ndarray]]  # the JSON's content, and the image to add

TIMEOUT = 3.0  # seconds for connecting, and again for the answer
MAX_QUEUED = 5  # label changes; when they are more, the oldest is dropped
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds until a state that failed is posted again, twice as long each time
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

    A receiver that is slow, down or answers with an error is one warning, until it works again. Meanwhile the newest
    state is posted again and again; a state that waits gives way to a newer one. Each image of a folder is posted only
    once: none stands for another. A redirect is an error, too, because the body would be lost.

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
        self._unsent: Entry | None = None  # the state that failed, to be posted again
        self._pause = FIRST_PAUSE  # seconds until then
        self._num_lost = 0  # images of a folder that were not posted because the receiver failed
        super().__init__(live, MAX_QUEUED, keep_newest=True)

    def _name(self) -> str:
        parts = urlsplit(self._url)
        return f"--post {parts.scheme}://{parts.netloc}"  # without the path, which may hold a secret

    def _prepare(self, result: FrameResult) -> Entry | None:
        label = result.prediction.label
        if label == self._last_label and result.frame.file is None:
            return None
        self._last_label = label
        return result.to_dict(), result.frame.image if self._with_image else None

    def _next(self) -> Entry | None:
        """Wait for the next entry. While a state waits to be posted again: a newer one, or that one after its pause."""
        if self._unsent is None:
            return self._queue.get()
        entry: Entry | None = self._unsent
        with contextlib.suppress(queue.Empty):
            entry = self._queue.get(timeout=self._pause)
            while entry is not None:  # None: the program ends, which does not wait for the receiver
                entry = self._queue.get_nowait()
        return entry

    def _write(self, entry: Entry) -> None:
        content, image = entry
        is_state = "file" not in content
        failure: str | None = "the program ends"
        if not (self._closing and self._failing):
            if image is not None:
                content["image"] = base64.b64encode(encode_jpeg(image, JPEG_QUALITY)).decode()
            failure = self._post(content)
            self._report(failure, is_state)
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if entry is self._unsent else FIRST_PAUSE
        self._unsent = entry if failure and is_state else None
        self._num_lost += bool(failure) and not is_state

    def _post(self, content: dict[str, Any]) -> str | None:
        """Post JSON. Returns what went wrong, or None."""
        headers = {"Content-Type": "application/json", "User-Agent": f"teachcam/{__version__}"}
        try:
            with self._opener.open(Request(self._url, json.dumps(content).encode(), headers), timeout=TIMEOUT):
                return None  # the body of the answer does not matter
        except HTTPError as error:
            error.close()
            return f"it answered {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
            return getattr(cause, "strerror", None) or first_line(cause)

    def _report(self, failure: str | None, is_state: bool) -> None:
        """Log that the receiver begins to fail, or works again."""
        if failure and not self._failing:
            again = "trying again with the newest label; " if is_state else ""
            logger.warning(f"warning: {self._name()}: {failure}; {again}the live loop goes on")
            self._live = True  # from now on no file waits for the receiver
        elif self._failing and not failure:
            logger.info(f"{self._name()}: works again")
        self._failing = bool(failure)

    def close(self, stall_timeout: float = TIMEOUT + 1) -> None:
        """Post what is queued, unless the receiver fails. A receiver that does not answer is a warning."""
        self._closing = True
        try:
            super().close(stall_timeout)
        except UserError as error:
            logger.warning(f"warning: {error}")
        if self.dropped:
            logger.warning(f"{self._name()}: {self.dropped} label changes were not posted: the receiver is too slow")
        if self._num_lost:
            images = "1 image was" if self._num_lost == 1 else f"{self._num_lost} images were"
            logger.warning(f"{self._name()}: {images} not posted: the receiver failed")


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirect an error. urllib itself would follow it without the body."""

    def redirect_request(self, *_: Any) -> None:
        return None
