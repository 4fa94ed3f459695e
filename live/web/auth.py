"""Access control of the live page: the token that opens it, and the limits of the page itself in the browser."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import secrets
import socket
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response

from teachcam.errors import UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SEND_BUFFER = 128 << 10  # bytes the system may hold for a slow client: more would be outdated images
STALL_TIMEOUT = 20.0  # seconds after which the system closes a connection whose client reads nothing (Linux only)

NO_TOKEN = "This page needs its token: open the whole address that was printed when it started (?token=...)\n"
NOT_LOCAL = "This page is for this machine only: open it as localhost, or start it with --http ADDRESS:PORT\n"
OTHER_SITE = "This page takes no corrections from another site\n"

SECURITY_HEADERS = [
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]
# No script, style, image or connection but the page's own. `frame-ancestors` is added: who may show it in a frame.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; object-src 'none'; frame-ancestors "
)


def parse_address(text: str) -> tuple[str, int]:
    """Parse the value of --http, for argparse.

    Args:
        text: PORT (served to this machine only) or ADDRESS:PORT, for example `8080`, `0.0.0.0:8080` or `[::]:8080`.

    Returns:
        The address and the port.

    Raises:
        argparse.ArgumentTypeError: The text is neither.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]:|([^\[\]:/\s]+):)?([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT or ADDRESS:PORT, for example 8080 or 0.0.0.0:8080")
    return match[1] or match[2] or "127.0.0.1", int(match[3])


class AccessControl:
    """Checks each request's token, Host and Origin.

    A page on a loopback address needs no token, but must be asked for by a loopback name: else another site could
    point its own name to this machine (DNS rebinding). A page on any other address needs its token.

    Args:
        bound: The address the server is bound to.
        port: Its port.

    Attributes:
        token: The secret, or None on a loopback address.
        url: The address to open in a browser, token included.
        notebooks: Sites that may be a notebook on this machine, as a content policy names them.
    """

    def __init__(self, bound: str, port: int):
        self.token = None if is_loopback(bound) else secrets.token_urlsafe(24)
        address = _reachable_address(bound)
        self.url = f"http://{address}:{port}/" + (f"?token={self.token}" if self.token else "")
        self.notebooks = f"http://localhost:* http://{address}:*"
        self._cookie = f"teachcam-{port}"  # with the port, because a browser sends a host's cookies to all its ports

    def check(self, request: HTTPConnection) -> Response | None:
        """Return the response that refuses a request or a WebSocket, or None if it is allowed."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.token is None:
            if not is_loopback(_host_name(host)):
                return PlainTextResponse(NOT_LOCAL, 403)
        elif not any(secrets.compare_digest(given.encode(), self.token.encode()) for given in self._tokens_in(request)):
            return PlainTextResponse(NO_TOKEN, 403)
        # A browser lets any site open a WebSocket here, and read what it sends.
        only_reads = request.scope.get("method") in ("GET", "HEAD")
        if not only_reads and origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse(OTHER_SITE, 403)
        return None

    def _tokens_in(self, request: HTTPConnection) -> list[str]:
        """Return the tokens in a request's query, cookie and Authorization header."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        tokens = [request.query_params.get("token"), request.cookies.get(self._cookie)]
        return [*filter(None, tokens), *([token.strip()] if scheme.lower() == "token" else [])]

    def move_token_to_cookie(self, request: Request) -> Response | None:
        """Return a redirect that moves the token into a cookie, if it is in the address, where others could see it."""
        if not (self.token and request.query_params.get("token")):
            return None
        response = Response(status_code=303, headers={"Location": "./"})
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
        return response


class AccessMiddleware:
    """ASGI middleware that answers only the requests that an AccessControl allows.

    It is plain ASGI, without Starlette's BaseHTTPMiddleware, which would copy each image through another queue.
    """

    def __init__(self, app: ASGIApp, access: AccessControl):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request or pass it on."""
        refusal = self._access.check(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, send)


def listen(address: str, port: int) -> socket.socket:
    """Open a listening socket whose connections inherit SEND_BUFFER and STALL_TIMEOUT.

    Raises:
        UserError: The address does not exist or the port is taken.
    """
    try:
        family, _, _, _, bound = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        both = address == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(bound, family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        reason = "there is no such address"
        if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
            reason = os.strerror(error.errno)
        raise UserError(f"--http: can't serve on {address} port {port}: {reason}; give another one") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALL_TIMEOUT))
    return listener


def is_loopback(name: str) -> bool:
    """Return whether a host name or an address means this machine itself, without asking a name server."""
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """Return the part of a Host header before the port, or "" if it is not a name or an address."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:/@]+))(?::[0-9]*)?", host)
    return (match[1] or match[2]) if match else ""


def _reachable_address(bound: str) -> str:
    """Return an address that a browser can open: this machine's own for a server that is bound to all addresses."""
    if ipaddress.ip_address(bound.partition("%")[0]).is_unspecified:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # UDP: this sends nothing, it only chooses the network interface
                bound = probe.getsockname()[0]
            except OSError:
                bound = socket.gethostname()
    return f"[{bound}]" if ":" in bound else bound
