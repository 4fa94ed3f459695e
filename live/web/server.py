"""The live loop as a web page, for a device without a screen: the picture, the answer, and corrections.

web = Web("127.0.0.1", 8080, labels, camera, teach)
print(web.url)
web(result)                  # for each answer: takes microseconds, whatever the browsers do

    GET  /         the page
    GET  /stream   the camera's picture, MJPEG
    GET  /events   the answers, server-sent events with one JSON object each
    POST /labels   {"label": X}: what is shown is in truth X

On a loopback address it is open to this machine alone; on any other, to whoever has the token that is in `url`.
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
from typing import AsyncIterator, Callable

import cv2
import numpy as np
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.errors import UserError
from teachcam.live.sinks.base import Result, lower_thread_priority
from teachcam.live.web.auth import Access, content_policy, listen

RATE = 40  # times a second that clients are sent something, at most
AT_ONCE = 4  # clients each time, in turn: many share it, and leave the loop its cores
HEARTBEAT = 1.0  # seconds: how often a client hears of the camera when there is no answer
JPEG_QUALITY = 80
LONGEST_SIDE = 1280  # pixels of the picture that is sent
CONNECTIONS = 256
SILENT = 10.0  # seconds that a connection may take to ask for something
LONGEST_REQUEST = 4096  # bytes of a correction


class Web:
    """A sink of the live loop that serves the page, from a thread of its own.

    It keeps the newest result and no more. After an answer it goes to a few clients, of those that have taken what they
    were sent before. A picture is encoded once, while somebody watches, in a second thread.
    """

    def __init__(
        self,
        address: str,
        port: int,
        labels: list[str],
        camera: Camera,
        teach: Callable[[np.ndarray, str], int] | None = None,
    ):
        """Serve on `address` and `port` (0: any that is free); the page to open is `url`.

        `labels` are the model's, until a result says otherwise. `teach` is called with an image, uint8 [H, W, 3] BGR,
        and its true label, in a thread, and returns how many it has saved; a UserError it raises is shown on the page.
        Raises UserError where the port can't be had.
        """
        listener = listen(address, port)
        self._access = Access(*listener.getsockname()[:2])
        self.url = self._access.url
        self._page = Path(__file__).with_name("page.html").read_bytes()
        self._headers = {
            "Content-Security-Policy": content_policy(self._page.decode()),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-store",
        }
        self._labels, self._camera, self._teach = labels, camera, teach
        self._newest: Result | None = None  # the live loop's last
        self._answered = threading.Event()  # one came; the loop does not wake the server itself, which takes it 1 ms
        self._shown: Result | None = None  # the one whose picture was encoded last
        self._jpeg = b""  # that picture
        self._watchers = 0  # connections that show pictures
        self._turns: deque[asyncio.Future] = deque()  # of clients that wait for a result, the longest first
        self._teacher = ThreadPoolExecutor(1, "teach")
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app, interface="asgi3", loop="asyncio", http=_Connection, ws="none", lifespan="off",
                log_config=None, log_level="error", access_log=False, server_header=False, proxy_headers=False,
            )
        )  # fmt: skip
        self._closed = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="web", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._passer = threading.Thread(target=self._pass_on, name="pass on", daemon=True)
        self._passer.start()

    def __call__(self, result: Result) -> bool:
        """Take the newest result."""
        self._newest = result
        self._answered.set()
        return True

    def close(self) -> None:
        """Hang up on everyone and give the port back; a correction being saved is saved."""
        if self._closed:
            return
        self._closed = True
        self._answered.set()
        self._passer.join(1.0)
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(5.0)
        self._teacher.shutdown()

    def _pass_on(self) -> None:
        """After an answer encode its picture, if somebody watches, and wake clients; at most `RATE` times a second."""
        lower_thread_priority(19)
        while not self._closed:
            self._answered.wait()
            self._answered.clear()
            newest = self._newest
            if self._watchers and newest is not None and newest is not self._shown:
                self._jpeg, self._shown = _encode(newest.frame.image), newest
            if self._turns and not self._closed:
                self._loop.call_soon_threadsafe(self._give_turns)
            time.sleep(1 / RATE)

    def _run(self, listener: socket.socket) -> None:
        lower_thread_priority(19)
        asyncio.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        serving = asyncio.ensure_future(self._server.serve([listener]))
        await self._closing.wait()
        self._give_turns(CONNECTIONS)
        self._server.should_exit = True
        await asyncio.wait([serving], timeout=0.5)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # it does not read, and would be waited for
        await serving

    def _give_turns(self, most: int = AT_ONCE) -> None:
        """Wake the clients that have waited longest."""
        for _ in range(min(most, len(self._turns))):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)

    async def _app(self, scope, receive, send) -> None:
        """One request, as ASGI has it."""
        request = Request(scope, receive)
        response = self._access.refusal(request) or await self._respond(request)
        response.headers.update(self._headers)
        watches = isinstance(response, StreamingResponse) and scope["path"] == "/stream"
        self._watchers += watches
        try:
            await response(scope, receive, send)
        finally:
            self._watchers -= watches

    async def _respond(self, request: Request) -> Response:
        method, path = request.method, request.scope["path"]
        allowed = {"/": "GET", "/stream": "GET", "/events": "GET", "/labels": "POST"}.get(path)
        if allowed is None:
            return PlainTextResponse("There is nothing here\n", 404)
        if method != allowed and not (path == "/" and method == "HEAD"):
            return PlainTextResponse(f"{path} takes {allowed}\n", 405, headers={"Allow": allowed})
        if path == "/stream":
            return StreamingResponse(self._pictures(), media_type="multipart/x-mixed-replace; boundary=frame")
        if path == "/events":
            return StreamingResponse(self._answers(), media_type="text/event-stream")
        if path == "/labels":
            return await self._correct(request)
        return self._access.welcome(request) or Response(self._page, media_type="text/html")

    async def _turn(self) -> None:
        """Return when it is a client's turn for the newest result, or a heartbeat has passed without one."""
        turn = self._loop.create_future()
        self._turns.append(turn)
        try:
            await asyncio.wait_for(turn, HEARTBEAT)
        except asyncio.TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):
                self._turns.remove(turn)

    async def _pictures(self) -> AsyncIterator[bytes]:
        """Yield the newest picture, and the next one when that was taken; the same again each heartbeat."""
        yield b"--frame\r\n"
        self._answered.set()  # there is no new picture yet, if nobody watched before
        while not self._closed:
            await self._turn()
            jpeg = self._jpeg
            if jpeg:
                # Without a newer one the same is sent again: browsers show a picture when the next one begins.
                yield b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--frame\r\n" % (len(jpeg), jpeg)

    async def _answers(self) -> AsyncIterator[str]:
        """Yield what the page shows, after each answer and at least every heartbeat."""
        while not self._closed:
            yield f"data: {json.dumps(self._state(self._newest))}\n\n"
            await self._turn()

    def _state(self, result: Result | None) -> dict[str, object]:
        state = {
            "camera": "lost" if self._camera.lost else "ok",
            "dropped": self._camera.dropped,
            "labels": self._labels if result is None else list(result.labels),
            "teach": self._teach is not None,
        }
        if result is None:
            return state
        answer, answered = result.answer, result.frame.captured + result.age
        return {
            **state,
            "frame": result.frame.number,
            "label": answer.label,
            "confidence": round(answer.confidence, 4),
            "probabilities": {label: round(value, 4) for label, value in answer.probabilities.items()},
            "latency_ms": round(1000 * result.latency, 2),
            "age_ms": round(1000 * result.age, 2),
            "since_ms": round(1000 * (time.monotonic() - answered)),
            "fps": round(result.fps, 1),
            "provider": result.provider,
        }

    async def _correct(self, request: Request) -> Response:
        """Save what is shown under the label that was sent."""
        if self._teach is None:
            return _error(404, "corrections are not being taken: start it with a folder to save them in")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(415, "send JSON, as application/json")
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_REQUEST:
                    return _error(413, f"more than {LONGEST_REQUEST} bytes")
            label = json.loads(body)["label"]
        except (ValueError, TypeError, KeyError, RecursionError, ClientDisconnect):
            return _error(400, 'send {"label": "..."}')
        result = self._shown if self._watchers and self._shown else self._newest
        if label not in (self._labels if self._newest is None else self._newest.labels):
            return _error(400, "the model has no such label")
        if result is None:
            return _error(409, "there is no frame yet")
        try:
            count = await self._loop.run_in_executor(self._teacher, self._teach, result.frame.image, label)
        except UserError as error:
            return _error(507 if isinstance(error.__context__, OSError) else 409, first_line(error))
        return JSONResponse({"label": label, "count": count})


class _Connection(H11Protocol):
    """A connection that is hung up on if it is one too many, or asks for nothing: each takes a file descriptor."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(SILENT, self._hang_up_on_silence)

    def _hang_up_on_silence(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def _error(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status)


def _encode(image: np.ndarray) -> bytes:
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
