"""Catch what image decoders print themselves: libjpeg and libtiff write to C's stderr, and name no file.

Many webcams end each JPEG with bytes too many, and libjpeg prints a line for each picture. That would fill a journal.

C's variable `stderr` is pointed at a file in memory while a decoder runs. Python, and C++ through std::cerr, do not use
it, so that messages of other threads go where they always go; the rare lines of other C code are passed on. Redirecting
file descriptor 2 instead would swallow Python's own. It takes 8 microseconds a picture, whose decoding takes 4,000
(640x480, one core of a shared server).

Only glibc's `stderr` is a variable, so elsewhere (musl, macOS, Windows) the messages still appear.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import sys
import threading
from functools import lru_cache
from typing import Callable, TypeVar

T = TypeVar("T")

KNOWN = re.compile(
    rb"(_?TIFF|ZIP|LZW|Fax|JPEG|PackBits|Predictor)\w+: |tempfile\.tif: |MissingRequired: "
    rb"|(Corrupt JPEG data|Inconsistent progression|Unknown Adobe color|Invalid SOS parameters"
    rb"|Warning: unknown JFIF revision|Premature end of JPEG file|Application transferred too many scanlines)"
)
# Of a picture that is not whole. Bytes too many before its end marker (0xd9) damage nothing.
DAMAGE = re.compile(
    rb"Premature end of JPEG file|Inconsistent progression"
    rb"|Corrupt JPEG data: (?!\d+ extraneous bytes before marker 0xd9|bad ICC)"
)
UNBUFFERED = 2  # _IONBF
MAX_NAMES = 1000  # of files and cameras whose damage was logged

logger = logging.getLogger(__name__)


def call_decoder(function: Callable[[], T], name: str | None, repeatable: bool = True) -> T:
    """Call a function that decodes a picture, without what its decoder prints. Damage is one warning for each name.

    Args:
        function: Decodes the picture.
        name: The file or the camera, for the warning. None for no warning.
        repeatable: Whether the function can be called again, to tell its own damage from that of another thread.
    """
    catcher = _catcher()
    if catcher is None:
        return function()
    result, damage, alone = catcher.call(function)
    if damage and name is not None and name not in _warned and len(_warned) < MAX_NAMES:
        if repeatable and not alone:
            damage = catcher.call_alone(function)
        if damage:
            _warned.add(name)
            logger.warning(f"warning: {name}: a damaged picture ({damage}), reported once")
    return result


_warned: set[str] = set()


class _Catcher:
    """Points C's stderr at a file in memory while at least one thread is inside a decoder."""

    def __init__(self, libc: ctypes.CDLL, file: int):
        """Prepare, with the descriptor of an empty file in memory."""
        self._stderr = ctypes.c_void_p.in_dll(libc, "stderr")
        self._file = file
        libc.fdopen.restype = ctypes.c_void_p
        self._stream = libc.fdopen(self._file, b"a")  # appends, so that it may be emptied meanwhile
        libc.setvbuf(ctypes.c_void_p(self._stream), None, UNBUFFERED, 0)
        self._original = self._stderr.value
        self._forget_threads()
        if sys.platform == "linux":  # as everywhere here; for the type checker
            os.register_at_fork(after_in_child=self._forget_threads)

    def _forget_threads(self) -> None:
        self._stderr.value = self._original
        self._num_inside, self._num_entered = 0, 0
        self._changed = threading.Condition()

    def call(self, function: Callable[[], T]) -> tuple[T, str, bool]:
        """Call a function. Returns its result, the damage that was printed meanwhile, and whether it was alone."""
        with self._changed:
            begin, entered, alone = self._enter(), self._num_entered, self._num_inside == 1
        try:
            result = function()
        finally:
            with self._changed:
                alone = alone and self._num_entered == entered
                damage = self._leave(begin)
        return result, damage, alone

    def call_alone(self, function: Callable[[], object]) -> str:
        """Call a function while no other thread is inside a decoder. Returns the damage that was printed."""
        with self._changed:  # nobody enters meanwhile
            self._changed.wait_for(lambda: self._num_inside == 0, timeout=1.0)  # a driver may hang inside one
            begin = self._enter()
            try:
                function()
            finally:
                damage = self._leave(begin)
            return damage

    def _enter(self) -> int:
        """Return where the messages of this call begin in the file."""
        self._num_inside += 1
        self._num_entered += 1
        self._stderr.value = self._stream
        return os.fstat(self._file).st_size

    def _leave(self, begin: int) -> str:
        """Return the first line since `begin` that speaks of damage. The last thread empties the file."""
        size = os.fstat(self._file).st_size
        lines = self._read(begin, size).splitlines() if size > begin else []
        self._num_inside -= 1
        if self._num_inside == 0:
            self._stderr.value = self._original
            if size:
                self._pass_on(self._read(0, size))
                os.ftruncate(self._file, 0)
        self._changed.notify_all()
        return next((line.decode(errors="replace") for line in lines if DAMAGE.match(line)), "")

    def _read(self, begin: int, end: int) -> bytes:
        if sys.platform == "linux":
            return os.pread(self._file, end - begin, begin)
        return b""

    def _pass_on(self, text: bytes) -> None:
        others = b"".join(line for line in text.splitlines(keepends=True) if not KNOWN.match(line))
        if others:
            with contextlib.suppress(OSError):
                os.write(2, others)


@lru_cache(maxsize=None)
def _catcher() -> _Catcher | None:
    """Return the one catcher, or None where C's stderr can't be replaced."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, ValueError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            return _Catcher(libc, os.memfd_create("decoder messages"))
    return None
