"""End a command at Ctrl-C, SIGTERM or SIGHUP: within three seconds whatever it does, and with its files finished.

An exception that a signal raises may come after a lock was taken and before `with` knows it. The lock then stays taken,
and whoever needs it waits for ever. So:

1. A loop that has files or connections open runs in `only_at_checks()`: `check()` raises KeyboardInterrupt between two
   frames, and nothing else does.
2. Elsewhere, as in training, a signal raises KeyboardInterrupt, but not inside the modules that handle locks.
3. A thread ends the program GRACE seconds after the signal, or at a second signal, whatever the other threads do.
   Before, it finishes what was given to `hold`: recordings, images that wait for the disk.

Without `watched`, as in a notebook, all of this does nothing.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any, Callable, Iterator, NoReturn

INTERRUPTED = 130  # exit code
GRACE = 2.5  # seconds from the signal until the thread ends the program
CLOSE_TIMEOUT = 1.5  # seconds from the signal for sinks to close, so that there is time left to release the camera
PROGRESS_TIMEOUT = 2.0  # seconds without progress after which something held is given up, for example on a stuck disk
LAST_CHANCE = 0.5  # seconds at least, from the end of GRACE or the second signal, for what is held
MAX_RETRIES = 500  # moments to look for one outside LOCKING; no time limit, which a busy machine would pass over
RETRY_INTERVAL = 0.002  # seconds between them
SAME_SIGNAL = 0.2  # seconds: a closing terminal sends two signals at once, which are not a user in a hurry
LOCKING = frozenset({"threading", "queue", "concurrent", "logging", "contextlib", "importlib", "tqdm"})  # modules
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = frozenset(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has no SIGHUP


class _State:
    """Plain attributes only: a signal handler may not wait for a lock."""

    def __init__(self) -> None:
        self.asked_at: float | None = None  # time.monotonic() of the first signal
        self.num_retries = 0  # how often KeyboardInterrupt was put off
        self.interrupted = False  # whether KeyboardInterrupt was raised
        self.at_once = False
        self.wakeup: socket.socket | None = None  # where Python writes the numbers of signals; kept open to the end
        self.hurry = False  # whether to end the program as soon as nothing is held
        self.num_held = 0  # blocks of `only_at_checks` that are open
        self.unfinished: dict[Callable[[], object], float] = {}  # what is held, and the time at which to give it up


_state = _State()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Handle signals while this lasts. For the main thread; `cli.run` uses it around a command.

    A signal that is ignored stays so, as SIGHUP is under nohup.
    """
    global _state
    _state = _State()
    reader, writer = socket.socketpair()
    _state.wakeup = writer
    writer.setblocking(False)
    # Python writes a signal's number there at once, even while the main thread is inside a library.
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()
    try:
        _handle_signals(_on_signal)
        yield
    finally:
        _state.num_held += 1  # from here on, no signal raises an exception
        if _state.asked_at is None:
            _handle_signals(signal.SIG_DFL)
            signal.set_wakeup_fd(before)
            writer.close()


def leave() -> NoReturn:
    """End the program after a signal.

    Python's own end would wait for threads that were given up, or abort if one is inside ONNX Runtime or OpenCV.
    """
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    _state.hurry = True
    while True:  # until `_watch` has finished what is held
        time.sleep(1.0)


def was_asked(seconds: float = 0.0) -> bool:
    """Return whether a signal has asked the program to end, at least so many seconds ago."""
    return _state.asked_at is not None and time.monotonic() >= _state.asked_at + seconds


def check() -> None:
    """Raise KeyboardInterrupt if a signal has asked the program to end."""
    if _state.asked_at is not None:
        _state.interrupted = True
        raise KeyboardInterrupt


def sleep(seconds: float) -> None:
    """Sleep, and `check` meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(0.1, left))


@contextlib.contextmanager
def only_at_checks() -> Iterator[None]:
    """While this lasts, a signal raises KeyboardInterrupt in `check` only, which is called at its end, too.

    So no lock is left taken, and all that is closed meanwhile is closed completely. Waits need a limit, or `check`.
    """
    _state.num_held += 1
    try:
        yield
    finally:
        _state.num_held -= 1
    check()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While this lasts, a signal ends the program at once.

    For imports: a library that is interrupted while it starts reports anything, or goes on without a part of itself.
    """
    _state.at_once = True
    try:
        yield
    finally:
        _state.at_once = False


def hold(finish: Callable[[], object], seconds: float = PROGRESS_TIMEOUT) -> None:
    """Have something finished before the program may end at a signal. Call it again whenever there is progress.

    Args:
        finish: Called in a thread, if time is up, to finish it. Then, or before, `release(finish)` must be called.
        seconds: How long it may take until it is finished, or makes progress. After that it is given up.
    """
    _state.unfinished[finish] = time.monotonic() + seconds


def is_progressing(finish: Callable[[], object]) -> bool:
    """Return whether something is held, and its time is not up."""
    return time.monotonic() < _state.unfinished.get(finish, 0.0)


def release(finish: Callable[[], object]) -> None:
    """Note that something is finished."""
    _state.unfinished.pop(finish, None)


def _handle_signals(handler: Any) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _on_signal(_number: int, frame: FrameType | None) -> None:
    """Note the signal, and raise KeyboardInterrupt once if that is allowed here. Python calls it in the main thread."""
    _note_signal()
    if _state.num_held or _state.interrupted:
        return
    module = "" if frame is None else frame.f_globals.get("__name__", "")
    in_lock = module.partition(".")[0] in LOCKING
    if in_lock and sys.platform != "win32" and _state.num_retries < MAX_RETRIES:
        _state.num_retries += 1
        signal.signal(signal.SIGALRM, _on_signal)
        signal.setitimer(signal.ITIMER_REAL, RETRY_INTERVAL)
        return
    _state.interrupted = True
    raise KeyboardInterrupt


def _note_signal() -> None:
    if _state.at_once:
        os._exit(INTERRUPTED)
    if _state.asked_at is None:
        _state.asked_at = time.monotonic()


def _watch(signals: socket.socket) -> None:
    """Wait for the first signal, and end the program if it has not ended by itself. It takes none of Python's locks."""
    with signals:
        while not SIGNALS.intersection(received := signals.recv(64)):
            if not received:
                return  # the command has ended
        _note_signal()
        signals.settimeout(0.02)
        give_up: float | None = None  # time.monotonic() until which all that is held is waited for
        while True:
            if give_up is None and (_state.hurry or was_asked(GRACE)):
                give_up = time.monotonic() + LAST_CHANCE
                for finish in list(_state.unfinished):
                    _thread.start_new_thread(_finish, (finish,))
            if give_up is not None:
                held = list(_state.unfinished.values())
                if not held or time.monotonic() >= max(give_up, *held):
                    os._exit(INTERRUPTED)
            with contextlib.suppress(socket.timeout):
                if SIGNALS.intersection(signals.recv(64)) and was_asked(SAME_SIGNAL):
                    _state.hurry = True


def _finish(finish: Callable[[], object]) -> None:
    with contextlib.suppress(BaseException):  # nobody is left to report it to
        finish()
