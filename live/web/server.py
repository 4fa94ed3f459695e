"""The live loop as a web page, for a device without a screen: images, predictions and corrections.

web = Web("127.0.0.1", 8080, labels, camera, save_correction)
print(web.url)
web(result)                  # for each FrameResult: takes microseconds, however slow the browsers are

    GET  /         the page; its scripts and styles are below /page/
    GET  /live     what the page shows: a WebSocket with images and predictions. A browser opens at most six other
                   connections to one address, for all its tabs together, so endless ones would leave none for requests
    GET  /stream   the camera's images, MJPEG, for other programs
    GET  /events   the predictions, server-sent events with one JSON object each, for other programs
    GET  /metrics  totals for Prometheus, see metrics.py
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import AsyncIterator, Callable

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.collect.dataset import normalize_text
from teachcam.errors import UserError
from teachcam.live.sinks.base import FrameResult, lower_thread_priority
from teachcam.live.web.auth import CONTENT_POLICY, SECURITY_HEADERS, AccessControl, AccessMiddleware, listen
from teachcam.live.web.broadcast import NICE, Broadcast
from teachcam.live.web.connection import Connection
from teachcam.live.web.json_requests import json_error, read_json
from teachcam.live.web.metrics import CONTENT_TYPE, Metrics
from teachcam.live.web.streams import ImageStream, route_without_head

PAGE = Path(__file__).with_name("page")  # the folder of the page's files


class Web:
    """A sink of the live loop that serves the page. The server runs in a thread.

    A page that can do more derives from it, and overrides `routes`, `extra_state` and `connected`.
    """

    def __init__(
        self,
        address: str,
        port: int,
        labels: list[str],
        camera: Camera,
        save_correction: Callable[[np.ndarray, str], int] | None = None,
        in_notebook: bool = False,
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
            in_notebook: Let notebooks that this machine serves show the page in a frame.

        Raises:
            UserError: The address does not exist or the port is taken.
        """
        listener = listen(address, port)
        self._access = AccessControl(*listener.getsockname()[:2])
        self.url = self._access.url
        self._labels, self._camera, self._save_correction = labels, camera, save_correction
        self._correction_thread = ThreadPoolExecutor(1, "correction")
        self._metrics = Metrics(camera)
        policy = CONTENT_POLICY + (self._access.notebooks if in_notebook else "'none'")
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._build_app(), headers=[("Content-Security-Policy", policy), *SECURITY_HEADERS],
                interface="asgi3", loop="asyncio", http=Connection, lifespan="off",
                ws="wsproto", ws_max_size=4096, ws_per_message_deflate=False,  # images are compressed already
                log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
            )
        )  # fmt: skip
        self._closed = False
        self._error: BaseException | None = None  # what ended the server's thread
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run_server, args=(listener,), name="web", daemon=True)
        self._thread.start()
        self._ready.wait()

    def __call__(self, result: FrameResult) -> bool:
        """Take the newest result. Raises UserError if a thread of the page has ended."""
        error = self._error or self._broadcast.error
        if error is not None:
            raise UserError(f"the page at {self.url} has ended: {type(error).__name__}: {first_line(error)}")
        self._broadcast.publish(result)
        self._metrics.add(result)
        return True

    def close(self) -> None:
        """Close all connections and free the port. A correction that is being saved is finished first."""
        if self._closed:
            return
        self._closed = True
        self._broadcast.close()
        with contextlib.suppress(RuntimeError):  # the server has ended already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(5.0)
        self._correction_thread.shutdown()

    # For a page that can do more.

    def routes(self) -> list[Route]:
        """Return further routes."""
        return []

    def extra_state(self) -> dict[str, object]:
        """Return what else the page shows, as JSON can hold it. It is sent to a page if it has changed."""
        return {}

    @contextlib.asynccontextmanager
    async def connected(self, page: str) -> AsyncIterator[None]:
        """Do something before a page gets its first state, and when its connection has ended.

        Args:
            page: The name that it gives itself. After a break, a page may connect again before that is noticed.
        """
        yield

    # The server's thread.

    def _run_server(self, listener: socket.socket) -> None:
        lower_thread_priority(NICE)
        try:
            asyncio.run(self._serve(listener))
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self, listener: socket.socket) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._broadcast = Broadcast(self._loop)
        self._ready.set()
        serving = asyncio.ensure_future(self._server.serve([listener]))
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait([serving, closing], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            closing.cancel()
            serving.result()  # raises what ended it
            raise RuntimeError("the server has ended by itself")
        self._server.should_exit = True
        await asyncio.wait([serving], timeout=0.5)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # this client does not read, so the server would wait for it
        await serving

    # The routes.

    def _build_app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/", self._get_page),
                Mount("/page", StaticFiles(directory=PAGE)),
                WebSocketRoute("/live", self._serve_page),
                route_without_head("/stream", self._get_stream),
                route_without_head("/events", self._get_events),
                Route("/metrics", self._get_metrics),
                Route("/labels", self._post_label, methods=["POST"]),
                *self.routes(),
            ],
            middleware=[Middleware(AccessMiddleware, access=self._access)],
        )
        app.router.redirect_slashes = False
        return app

    async def _get_page(self, request: Request) -> Response:
        return self._access.move_token_to_cookie(request) or FileResponse(PAGE / "index.html")

    async def _serve_page(self, websocket: WebSocket) -> None:
        """Send a page what it shows, until it or the server closes."""
        async with self.connected(websocket.query_params.get("page", "")[:40]):
            await websocket.accept()
            parts = self._send_results(websocket), _wait_until_closed(websocket)
            tasks = [asyncio.ensure_future(part) for part in parts]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()

    async def _send_results(self, websocket: WebSocket) -> None:
        """Send the state as JSON at each turn, and the image before it."""
        sent: dict[str, object] = {}
        with self._broadcast.watching(), contextlib.suppress(WebSocketDisconnect, RuntimeError):
            async for result, jpeg in self._broadcast.results():
                state, extra = self._state(result), self.extra_state()
                if extra != sent:
                    state, sent = {**state, **extra}, extra
                if jpeg:
                    await websocket.send_bytes(jpeg)
                await websocket.send_text(json.dumps(state))
            await websocket.close()

    async def _get_stream(self, request: Request) -> Response:
        return ImageStream(self._broadcast)

    async def _get_events(self, request: Request) -> Response:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _get_metrics(self, request: Request) -> Response:
        return Response(self._metrics.to_text(), headers={"Content-Type": CONTENT_TYPE})

    async def _post_label(self, request: Request) -> Response:
        """Save the image that is shown, with the label in the request."""
        if self._save_correction is None:
            return json_error(404, "this page takes no corrections")
        content = await read_json(request)
        if isinstance(content, Response):
            return content
        label = content.get("label")
        if not isinstance(label, str):
            return json_error(400, 'send {"label": "..."}')
        label = normalize_text(label)
        newest, result = self._broadcast.newest, self._broadcast.shown
        if label not in (self._labels if newest is None else newest.labels):
            return json_error(400, "the model has no such label")
        if result is None:
            return json_error(409, "the camera has given no image yet")
        try:
            saving = self._loop.run_in_executor(
                self._correction_thread, self._save_correction, result.frame.image, label
            )
            count = await saving
        except UserError as error:
            return json_error(507 if isinstance(error.__context__, OSError) else 409, first_line(error))
        return JSONResponse({"label": label, "count": count})

    async def _events(self) -> AsyncIterator[str]:
        """Yield the state of the page as server-sent events."""
        async for result in self._broadcast.updates():
            yield f"data: {json.dumps({**self._state(result), **self.extra_state()})}\n\n"

    def _state(self, result: FrameResult | None) -> dict[str, object]:
        state: dict[str, object] = {
            "camera": "lost" if self._camera.reconnecting else "ok",
            "dropped": self._camera.dropped,
            "labels": self._labels if result is None else list(result.labels),
            "corrections": self._save_correction is not None,
        }
        if result is None:
            return state
        predicted_at = result.frame.captured + result.age
        return {
            **state,
            **result.to_dict(),
            "since_ms": round(1000 * (time.monotonic() - predicted_at)),
            "fps": round(result.fps, 1),
            "provider": result.provider,
        }


async def _wait_until_closed(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass  # the page sends nothing
