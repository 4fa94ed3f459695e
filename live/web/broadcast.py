"""Hands the newest result to many clients, so that neither many of them nor slow ones slow the live loop down."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from typing import AsyncIterator, Iterator

import cv2
import numpy as np

from teachcam.images import encode_jpeg
from teachcam.live.sinks.base import FrameResult, lower_thread_priority

MAX_RATE = 40  # updates per second, at most
CLIENTS_PER_UPDATE = 4  # the others have to wait for their turn, so that many clients leave the loop its cores
HEARTBEAT = 1.0  # seconds after which a client gets an update even if there is no new result
JPEG_QUALITY = 80
NICE = 5  # of the page's threads; with 19, a page took 18 s to load beside busy programs
MAX_IMAGE_SIDE = 1280  # pixels: larger images are sent smaller


class Broadcast:
    """Keeps the newest result, encodes its image in a thread, and wakes the clients that wait for it.

    Each image is encoded once, and only while a client watches. A client gets the newest result when it has taken the
    one before; a slow client skips results.

    Attributes:
        newest: The newest result, or None before the first.
        error: What ended the thread, or None.
    """

    def __init__(self, server_loop: asyncio.AbstractEventLoop):
        """Start the thread.

        Args:
            server_loop: The event loop that runs the clients. `updates` and `images` may be used in it only.
        """
        self.newest: FrameResult | None = None
        self.error: BaseException | None = None
        # Set by the live loop for each result. It does not wake the server itself, because that takes it 1 ms.
        self._new_result = threading.Event()
        self._encoded: tuple[FrameResult, bytes] | None = None  # the result whose image was encoded last, and its JPEG
        self._num_watchers = 0  # clients that show images
        self._turns: deque[asyncio.Future] = deque()  # of the clients that wait for a result, the longest wait first
        self._closed = False
        self._server_loop = server_loop
        self._thread = threading.Thread(target=self._run, name="web encoder", daemon=True)
        self._thread.start()

    def publish(self, result: FrameResult) -> None:
        """Take the newest result. Takes microseconds."""
        self.newest = result
        self._new_result.set()

    @property
    def shown(self) -> FrameResult | None:
        """The result whose image the clients see."""
        return self._encoded[0] if self._num_watchers and self._encoded else self.newest

    def close(self) -> None:
        """End the thread and every client's loop."""
        self._closed = True
        self._new_result.set()
        self._thread.join(1.0)
        with contextlib.suppress(RuntimeError):  # the server has ended already
            self._server_loop.call_soon_threadsafe(self._wake_clients, sys.maxsize)

    async def updates(self) -> AsyncIterator[FrameResult | None]:
        """Yield the newest result at each turn of this client, at least once per HEARTBEAT."""
        while not self._closed:
            yield self.newest
            await self._wait_for_turn()

    async def images(self) -> AsyncIterator[bytes]:
        """Yield the newest image at each turn of this client, as a JPEG. Count the client with `watching` meanwhile."""
        self._new_result.set()  # if nobody has watched before, the newest image is not encoded yet
        while not self._closed:
            await self._wait_for_turn()
            if self._encoded:
                yield self._encoded[1]

    async def results(self) -> AsyncIterator[tuple[FrameResult | None, bytes]]:
        """Yield the newest result at each turn of this client, with its image as a JPEG.

        The image is b"" if the client has it already. Count the client with `watching` meanwhile.
        """
        sent = None
        self._new_result.set()  # as in `images`
        yield self.newest, b""
        while not self._closed:
            await self._wait_for_turn()
            encoded = self._encoded
            if encoded is None or encoded is sent:
                yield self.newest, b""
            else:
                sent = encoded
                yield encoded

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count one more client that shows images, for as long as this lasts."""
        self._num_watchers += 1
        try:
            yield
        finally:
            self._num_watchers -= 1

    def _run(self) -> None:
        try:
            self._encode_and_wake()
        except BaseException as error:
            self.error = error

    def _encode_and_wake(self) -> None:
        """After a result, encode its image if a client shows it, and wake clients; at most MAX_RATE times a second."""
        lower_thread_priority(NICE)
        while not self._closed:
            self._new_result.wait()
            self._new_result.clear()
            newest = self.newest
            encoded = None if self._encoded is None else self._encoded[0]
            if self._num_watchers and newest is not None and newest is not encoded:
                self._encoded = newest, _encode(newest.frame.image)
            if self._turns and not self._closed:
                self._server_loop.call_soon_threadsafe(self._wake_clients, CLIENTS_PER_UPDATE)
            time.sleep(1 / MAX_RATE)

    def _wake_clients(self, limit: int) -> None:
        """Wake the clients that have waited longest."""
        for _ in range(min(limit, len(self._turns))):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)

    async def _wait_for_turn(self) -> None:
        """Wait until this client may have the newest result, but not longer than a heartbeat."""
        turn = self._server_loop.create_future()
        self._turns.append(turn)
        try:
            await asyncio.wait_for(turn, HEARTBEAT)
        except asyncio.TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):
                self._turns.remove(turn)


def _encode(image: np.ndarray) -> bytes:
    """Return a JPEG, with its longer side at most MAX_IMAGE_SIDE."""
    scale = MAX_IMAGE_SIDE / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(image, JPEG_QUALITY)
