"""The live page: a web server that is a sink of the live loop."""

from __future__ import annotations

from teachcam.errors import UserError


def http_address(text: str) -> tuple[str, int]:
    """Return the address and the port of --http, for argparse. Raises UserError if packages are missing."""
    try:
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
        import wsproto  # noqa: F401

        from teachcam.live.web.auth import parse_address
    except ImportError:
        raise UserError("--http needs more packages: pip install starlette uvicorn wsproto prometheus-client") from None
    return parse_address(text)
