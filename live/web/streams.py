"""Responses that never end, for other programs than the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.routing import Route

from teachcam.live.web.broadcast import Broadcast

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class ImageStream(StreamingResponse):
    """The camera's images as MJPEG, for one client."""

    def __init__(self, broadcast: Broadcast):
        super().__init__(self._parts(), media_type="multipart/x-mixed-replace; boundary=frame")
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._broadcast.watching():
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"--frame\r\n"
        async for jpeg in self._broadcast.images():
            # At a heartbeat the same image comes again, because browsers show an image when the next one begins.
            yield b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--frame\r\n" % (len(jpeg), jpeg)


def route_without_head(path: str, endpoint: Callable) -> Route:
    """Return a route for GET alone. Route itself adds HEAD, for which an endless response would run unseen."""
    route = Route(path, endpoint)
    route.methods = {"GET"}
    return route
