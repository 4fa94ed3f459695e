"""The live page: a web server that is a sink of the live loop."""

from __future__ import annotations

from teachcam.errors import UserError


def http_address(text: str) -> tuple[str, int]:
    """Return the address and the port of --http, for argparse. Raises UserError if packages are missing."""
    try:
        from teachcam.live.web.auth import parse_address
    except ImportError:
        raise UserError("--http needs two more packages: pip install starlette uvicorn") from None
    return parse_address(text)
