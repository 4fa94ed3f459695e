"""Read the JSON of requests, and answer with JSON."""

from __future__ import annotations

import json

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from teachcam.files import parse_json

MAX_BODY_BYTES = 4096


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> dict | Response:
    """Return the JSON object in a request's body, or the response that refuses it, as a body above `max_bytes`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return json_error(415, "send JSON, with Content-Type: application/json")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                return json_error(413, f"more than {max_bytes} bytes")
        content = parse_json(body)
        # Half of a surrogate pair is no text, and no answer could hold it. Raises UnicodeEncodeError, a ValueError.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, ClientDisconnect):
        content = None
    return content if isinstance(content, dict) else json_error(400, "send a JSON object")


def json_error(status: int, message: str) -> Response:
    """Return a response that says what is wrong."""
    return JSONResponse({"error": message}, status)
