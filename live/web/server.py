"""The live loop as a web page, for a device without a screen: images, predictions and corrections.

web = Web("127.0.0.1", 8080, labels, camera, save_correction)
print(web.url)
web(result)                  # for each FrameResult: takes microseconds, however slow the browsers are

    GET  /         the page
    GET  /stream   the camera's images, MJPEG
    GET  /events   the predictions, server-sent events with one JSON object each
    POST /labels   {"label": X}: save the image that is shown as X

On a loopback address only this machine may open it. On any other address the token that is part of `url` is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, AsyncIterator, Callable

import cv2
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.errors import UserError
from teachcam.images import encode_jpeg
from teachcam.live.sinks.base import FrameResult, lower_thread_priority
from teachcam.live.web.auth import AccessControl, AccessMiddleware, listen, security_headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_RATE = 40  # updates per second, at most
CLIENTS_PER_UPDATE = 4  # the others have to wait for their turn, so that many clients leave the loop its cores
HEARTBEAT = 1.0  # seconds after which a client gets an update even if there is no new result
JPEG_QUALITY = 80
MAX_IMAGE_SIDE = 1280  # pixels: larger images are sent smaller
MAX_CONNECTIONS = 256
REQUEST_TIMEOUT = 10.0  # seconds that a new connection may take until its first request
MAX_BODY_BYTES = 4096  # of a correction


class Web:
    """A sink of the live loop that serves the page.

    It keeps only the newest result. The server runs in one thread, and a second thread encodes the images. Each image
    is encoded once, and only while a browser shows it. A client gets the newest result when it has taken the one
    before; a slow client skips results.
    """

    def __init__(
        self,
        address: str,
        port: int,
        labels: list[str],
        camera: Camera,
        save_correction: Callable[[np.ndarray, str], int] | None = None,
    ):
        """Start serving; `url` is the address to open.

        Args:
            address: Where to listen, for example 127.0.0.1 or 0.0.0.0.
            port: 0 for any free port.
            labels: The model's labels, shown until the first result.
            camera: Where the frames come from; the page tells when it is lost.
            save_correction: Called in a thread with an image, uint8 [H, W, 3] BGR, and its true label. Returns how
                many images it has saved with that label. The page shows a UserError that it raises. None: the page
                takes no corrections.

        Raises:
            UserError: The address does not exist or the port is taken.
        """
        listener = listen(address, port)
        self._access = AccessControl(*listener.getsockname()[:2])
        self.url = self._access.url
        self._page = Path(__file__).with_name("page.html").read_bytes()
        self._labels, self._camera, self._save_correction = labels, camera, save_correction
        self._newest: FrameResult | None = None
        # Set by the loop for each result. The loop does not wake the server itself, because that takes it 1 ms.
        self._new_result = threading.Event()
        self._encoded: FrameResult | None = None  # the result whose image was encoded last
        self._jpeg = b""  # that image
        self._num_watchers = 0  # connections that show images
        self._turns: deque[asyncio.Future] = deque()  # of the clients that wait for a result, the longest wait first
        self._correction_thread = ThreadPoolExecutor(1, "correction")
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._build_app(), headers=list(security_headers(self._page.decode()).items()),
                interface="asgi3", loop="asyncio", http=_Connection, ws="none", lifespan="off",
                log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
            )
        )  # fmt: skip
        self._closed = False
        self._ready = threading.Event()
        self._server_thread = threading.Thread(target=self._run_server, args=(listener,), name="web", daemon=True)
        self._server_thread.start()
        self._ready.wait()
        self._encoder_thread = threading.Thread(target=self._encode_and_wake, name="web encoder", daemon=True)
        self._encoder_thread.start()

    def __call__(self, result: FrameResult) -> bool:
        """Take the newest result."""
        self._newest = result
        self._new_result.set()
        return True

    def close(self) -> None:
        """Close all connections and free the port. A correction that is being saved is finished first."""
        if self._closed:
            return
        self._closed = True
        self._new_result.set()
        self._encoder_thread.join(1.0)
        self._loop.call_soon_threadsafe(self._closing.set)
        self._server_thread.join(5.0)
        self._correction_thread.shutdown()

    # The threads.

    def _encode_and_wake(self) -> None:
        """After a result, encode its image if a browser shows it, and wake clients; at most MAX_RATE times a second."""
        lower_thread_priority(19)
        while not self._closed:
            self._new_result.wait()
            self._new_result.clear()
            newest = self._newest
            if self._num_watchers and newest is not None and newest is not self._encoded:
                self._jpeg, self._encoded = _encode(newest.frame.image), newest
            if self._turns and not self._closed:
                self._loop.call_soon_threadsafe(self._wake_clients)
            time.sleep(1 / MAX_RATE)

    def _run_server(self, listener: socket.socket) -> None:
        lower_thread_priority(19)
        asyncio.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        serving = asyncio.ensure_future(self._server.serve([listener]))
        await self._closing.wait()
        self._wake_clients(MAX_CONNECTIONS)
        self._server.should_exit = True
        await asyncio.wait([serving], timeout=0.5)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # this client does not read, so the server would wait for it
        await serving

    # The turns of the clients, in the server's thread.

    def _wake_clients(self, limit: int = CLIENTS_PER_UPDATE) -> None:
        """Wake the clients that have waited longest."""
        for _ in range(min(limit, len(self._turns))):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)

    async def _wait_for_turn(self) -> None:
        """Wait until this client may have the newest result, but not longer than a heartbeat."""
        turn = self._loop.create_future()
        self._turns.append(turn)
        try:
            await asyncio.wait_for(turn, HEARTBEAT)
        except asyncio.TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):
                self._turns.remove(turn)

    # The routes.

    def _build_app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/", self._get_page),
                _route_without_head("/stream", self._get_stream),
                _route_without_head("/events", self._get_events),
                Route("/labels", self._post_label, methods=["POST"]),
            ],
            middleware=[Middleware(AccessMiddleware, access=self._access)],
        )
        app.router.redirect_slashes = False
        return app

    async def _get_page(self, request: Request) -> Response:
        return self._access.move_token_to_cookie(request) or Response(self._page, media_type="text/html")

    async def _get_stream(self, request: Request) -> Response:
        return _ImageStream(self)

    async def _get_events(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _post_label(self, request: Request) -> Response:
        """Save the image that is shown, with the label in the request."""
        if self._save_correction is None:
            return _json_error(404, "this page takes no corrections")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _json_error(415, "send JSON, with Content-Type: application/json")
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return _json_error(413, f"more than {MAX_BODY_BYTES} bytes")
            label = json.loads(body)["label"]
        except (ValueError, TypeError, KeyError, RecursionError, ClientDisconnect):
            return _json_error(400, 'send {"label": "..."}')
        result = self._encoded if self._num_watchers and self._encoded else self._newest
        if label not in (self._labels if self._newest is None else self._newest.labels):
            return _json_error(400, "the model has no such label")
        if result is None:
            return _json_error(409, "the camera has given no image yet")
        try:
            saving = self._loop.run_in_executor(
                self._correction_thread, self._save_correction, result.frame.image, label
            )
            count = await saving
        except UserError as error:
            return _json_error(507 if isinstance(error.__context__, OSError) else 409, first_line(error))
        return JSONResponse({"label": label, "count": count})

    # What the endless responses send.

    async def _images(self) -> AsyncIterator[bytes]:
        """Yield the newest image at each turn, as parts of a multipart response."""
        yield b"--frame\r\n"
        self._new_result.set()  # if nobody has watched before, the newest image is not encoded yet
        while not self._closed:
            await self._wait_for_turn()
            jpeg = self._jpeg
            if jpeg:
                # At a heartbeat the same image is sent again, because browsers show an image when the next one begins.
                yield b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--frame\r\n" % (len(jpeg), jpeg)

    async def _events(self) -> AsyncIterator[str]:
        """Yield the state of the page at each turn, as server-sent events."""
        while not self._closed:
            yield f"data: {json.dumps(self._state(self._newest))}\n\n"
            await self._wait_for_turn()

    def _state(self, result: FrameResult | None) -> dict[str, object]:
        state: dict[str, object] = {
            "camera": "lost" if self._camera.reconnecting else "ok",
            "dropped": self._camera.dropped,
            "labels": self._labels if result is None else list(result.labels),
            "corrections": self._save_correction is not None,
        }
        if result is None:
            return state
        prediction, predicted_at = result.prediction, result.frame.captured + result.age
        return {
            **state,
            "frame": result.frame.number,
            "label": prediction.label,
            "confidence": round(prediction.confidence, 4),
            "probabilities": {label: round(value, 4) for label, value in prediction.probabilities.items()},
            "latency_ms": round(1000 * result.latency, 2),
            "age_ms": round(1000 * result.age, 2),
            "since_ms": round(1000 * (time.monotonic() - predicted_at)),
            "fps": round(result.fps, 1),
            "provider": result.provider,
        }


class _ImageStream(StreamingResponse):
    """An MJPEG response. While it runs, the page counts one more watcher and so encodes images."""

    def __init__(self, web: Web):
        super().__init__(web._images(), media_type="multipart/x-mixed-replace; boundary=frame")
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._web._num_watchers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._web._num_watchers -= 1


class _Connection(H11Protocol):
    """A connection that is closed at once if there are too many, and after a while if it sends no request.

    Each connection takes a file descriptor, so idle ones could use up all that the process may have.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(REQUEST_TIMEOUT, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def _route_without_head(path: str, endpoint: Callable) -> Route:
    """Return a route for GET alone. Route itself adds HEAD, for which an endless response would run unseen."""
    route = Route(path, endpoint)
    route.methods = {"GET"}
    return route


def _json_error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _encode(image: np.ndarray) -> bytes:
    """Return a JPEG, with its longer side at most MAX_IMAGE_SIDE."""
    scale = MAX_IMAGE_SIDE / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(image, JPEG_QUALITY)
