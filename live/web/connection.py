"""The connections of the page's clients: limited in number, and in the time that a request may take."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
REQUEST_TIMEOUT = 10.0  # seconds that a client may take to send a request with its body


class Connection(H11Protocol):
    """A connection that is closed at once if there are too many, and after a while if a request is not finished.

    Each connection takes a file descriptor, so idle ones could use up all that the process may have.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_websocket = False  # since its request: uvicorn's protocol for these has taken over, with its own pings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._limit_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._limit_time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # the request was answered before its wrong end came
            self.transport.abort()
        if self.cycle is not None:
            self.cycle.disconnected = True  # so that its answer is not sent any more
            self.cycle.message_event.set()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if not all(value.isascii() for _, value in event.headers):  # wsproto would raise UnicodeDecodeError
            self.send_400_response("Invalid HTTP request received.")
            return
        super().handle_websocket_upgrade(event)
        self._is_websocket = True
        self._stop_timer()

    def _limit_time(self) -> None:
        """Start the timer if a request is awaited, or its rest. Further bytes do not start it again."""
        if self._is_websocket:
            return
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
