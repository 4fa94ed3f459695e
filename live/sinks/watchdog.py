"""Tell systemd that the live loop works, so that it restarts a loop that has stopped giving results."""

from __future__ import annotations

import logging
import socket
import sys
import time

from teachcam.errors import UserError
from teachcam.live.sinks.base import FrameResult

INTERVAL = 5.0  # seconds between two signs of life; live/jetson/teachcam.service restarts the loop after 60 without

logger = logging.getLogger(__name__)


class Watchdog:
    """A sink that sends READY=1 with the first result, and then WATCHDOG=1 as long as results come (sd_notify).

    It never fails: a program may inherit the address of a socket that is not meant for it.

    Args:
        address: The path of systemd's datagram socket: the environment variable NOTIFY_SOCKET. A leading @ stands for
            a name in Linux's abstract namespace.
    """

    def __init__(self, address: str):
        self._socket = _open_socket()
        self._socket.setblocking(False)  # the loop must not wait for systemd
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._message = b"READY=1"
        self._next_time = float("-inf")  # seconds, of time.monotonic
        self._warned = False

    def __call__(self, result: FrameResult) -> bool:
        """Send a message if one is due. A message that finds systemd's queue full is sent with the next result."""
        now = time.monotonic()
        if now < self._next_time:
            return True
        try:
            self._socket.sendto(self._message, self._address)
            self._message = b"WATCHDOG=1"
        except BlockingIOError:
            return True
        except OSError as error:
            if not self._warned:
                logger.warning(f"can't tell systemd that this program runs: {error.strerror}")
            self._warned = True
        self._next_time = now + INTERVAL
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _open_socket() -> socket.socket:
    if sys.platform == "win32":
        raise UserError("systemd's watchdog is not for Windows: remove NOTIFY_SOCKET from the environment")
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
