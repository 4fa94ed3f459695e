"""Who may see the live page (this machine alone, or whoever has the token), and what the page itself may do."""

from __future__ import annotations

import argparse
import base64
import hashlib
import ipaddress
import os
import re
import secrets
import socket

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from teachcam.errors import UserError

UNSENT = 128 << 10  # bytes that may wait in the system for a slow client: more would be old pictures
STALLED = 20.0  # seconds until a client that takes nothing is hung up on (Linux)

NO_TOKEN = "This page needs its token: open the whole address that live/run.py printed when it started (?token=...)\n"
NOT_LOCAL = "This page is for this machine alone: open it as localhost, or start it with --http ADDRESS:PORT\n"
FOREIGN = "This page takes no corrections from another site\n"


def address_and_port(text: str) -> tuple[str, int]:
    """Read what --http takes: `8080` (this machine alone), `0.0.0.0:8080`, `[::]:8080`, `name:8080`."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]:|([^\[\]:/\s]+):)?([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no PORT and no ADDRESS:PORT, as in 8080 or 0.0.0.0:8080")
    return match[1] or match[2] or "127.0.0.1", int(match[3])


class Access:
    """The page's address with its token, and the check of each request."""

    def __init__(self, bound: str, port: int):
        """Guard what is served on `bound` and `port`; the address to open, token included, is `url`."""
        self.token = None if is_loopback(bound) else secrets.token_urlsafe(24)
        self.url = f"http://{_reachable(bound)}:{port}/" + (f"?token={self.token}" if self.token else "")
        self._cookie = f"teachcam-{port}"  # a browser sends a host's cookies to all of its ports

    def refusal(self, request: Request) -> Response | None:
        """Say why a request is not answered, if it is not."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.token is None:
            if not is_loopback(_name_in(host)):  # another site's name that was made to point here
                return PlainTextResponse(NOT_LOCAL, 403)
        elif not any(secrets.compare_digest(given.encode(), self.token.encode()) for given in self._given(request)):
            return PlainTextResponse(NO_TOKEN, 403)
        if request.method not in ("GET", "HEAD") and origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse(FOREIGN, 403)
        return None

    def _given(self, request: Request) -> list[str]:
        """List the tokens that came with a request."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = [request.query_params.get("token"), request.cookies.get(self._cookie)]
        return [*filter(None, given), *([token.strip()] if scheme.lower() == "token" else [])]

    def welcome(self, request: Request) -> Response | None:
        """Move a token from the address, where others see it, into a cookie."""
        if not (self.token and request.query_params.get("token")):
            return None
        response = Response(status_code=303, headers={"Location": "./"})
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
        return response


def content_policy(page: str) -> str:
    """Return a Content-Security-Policy under which nothing runs but what is written in `page` itself."""

    def hashes(tag: str) -> str:
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'self'; script-src {hashes('script')}; style-src {hashes('style')}; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    )


def listen(address: str, port: int) -> socket.socket:
    """Open the port; its connections inherit how much may wait for a client, and how long."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(where, family=family, dualstack_ipv6=address == "::" and _dual())
    except (OSError, UnicodeError) as error:
        known = isinstance(error, OSError) and not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno) if known else "there is no such address"
        raise UserError(f"--http: can't serve on {address} port {port}: {reason}; give another one") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALLED))
    return listener


def _dual() -> bool:
    return socket.has_dualstack_ipv6()


def _name_in(host: str) -> str:
    """Return what stands before the port in a Host header."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def is_loopback(name: str) -> bool:
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _reachable(bound: str) -> str:
    """Return the address to open: of a server on all addresses, the one this machine has in its network."""
    if ipaddress.ip_address(bound.partition("%")[0]).is_unspecified:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the interface
                bound = probe.getsockname()[0]
            except OSError:
                bound = socket.gethostname()
    return f"[{bound}]" if ":" in bound else bound
