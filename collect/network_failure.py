"""Say why a network camera gives no picture: in a sentence that is true, and without its password."""

from __future__ import annotations

import base64
import errno
import http.client
import re
import socket
import urllib.parse
import urllib.request

TIMEOUT = 5  # seconds that a camera may take to answer, or to send the next image
RTSP_PORT = 554
NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
REFUSING = (401, 403)


def describe_status(status: int, url: str) -> str:
    """Return what an HTTP or RTSP status other than success says about the address that was asked for."""
    has_user = "@" in _authority(url)
    if status in REFUSING and not has_user:
        scheme = url.partition(":")[0]
        return f"the camera asks for a user and a password ({status}): give {scheme}://USER:PASSWORD@..."
    if status == 401:
        return "the user or the password is wrong (401)"
    if status == 403:
        return "the user or the password is wrong, or this user may not see it (403)"
    if status in (404, 410):
        return f"the camera has nothing at this path ({status}): check what follows the host's name"
    phrase = http.client.responses.get(status, "").lower()
    return f"the camera itself answered with an error ({status}{phrase and ', ' + phrase})"


def describe_error(error: BaseException) -> str | None:
    """Return what a failed connection says about the camera. None for an error that FFmpeg might not have."""
    error = getattr(error, "reason", error)  # URLError hides the error itself there
    if isinstance(error, socket.gaierror):
        return "the network knows no machine of this name: check the name"
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers at this port (connection refused): check the port, and that the camera is on"
    if isinstance(error, socket.timeout):
        return f"no answer within {TIMEOUT} s: check that the camera is on and the address is right"
    if isinstance(error, OSError) and error.errno in NO_ROUTE:
        return "no way leads to this address: check it, that the camera is on, and this machine's network"
    return None


def describe_sign(url: str) -> str | None:
    """Return what to write for a #, /, ? or @ of a password that ends an address too early. None if there is none."""
    authority = _authority(url)
    rest = url.partition("://")[2][len(authority) :]
    cut_off = "@" in rest and "@" not in authority
    sign = rest[:1] if cut_off else "#" if "#" in rest else None  # a camera is never sent what follows a #
    return sign and f"if the {sign} belongs to the password, write {urllib.parse.quote(sign, safe='')} for it"


def ask_rtsp(url: str) -> str | None:
    """Ask an rtsp:// address for its description, because FFmpeg hides the answer. Returns what is wrong, if known."""
    try:
        parts = urllib.parse.urlsplit(url)
        bare = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        status, headers = _describe(parts, bare, "")
        if status == 401 and parts.username is not None:
            user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
            challenges = headers.get_all("WWW-Authenticate", [])
            status, _ = _describe(parts, bare, _authorization(challenges, bare, user, password))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return describe_error(error)
    return describe_status(status, url) if status >= 400 else None


def _authority(url: str) -> str:
    return re.split("[/?#]", url.partition("://")[2])[0]


def _describe(parts: urllib.parse.SplitResult, url: str, authorization: str) -> tuple[int, http.client.HTTPMessage]:
    """Send one DESCRIBE request, and return the status and the headers of the answer."""
    with socket.create_connection((parts.hostname, parts.port or RTSP_PORT), TIMEOUT) as connection:
        head = f"DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n{authorization}\r\n"
        connection.sendall(head.encode())
        with connection.makefile("rb") as answer:
            status = re.match(rb"RTSP/[\d.]+ (\d{3})", answer.readline(1 << 10))
            if status is None:
                raise ValueError("not RTSP")
            return int(status[1]), http.client.parse_headers(answer)


def _authorization(challenges: list[str], url: str, user: str, password: str) -> str:
    """Return the header that answers a challenge: Digest if the camera offers it, else Basic."""
    for challenge in challenges:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "digest":
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            passwords.add_password(None, url, user, password)
            handler = urllib.request.AbstractDigestAuthHandler(passwords)
            request = urllib.request.Request(url, method="DESCRIBE")
            request.selector = url  # RTSP names the whole address in its first line
            values = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
            return f"Authorization: Digest {handler.get_authorization(request, values)}\r\n"
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"
