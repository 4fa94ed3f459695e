"""The frame around every command: one-line errors, exit codes, messages on stderr, and a parser that keeps to them."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from typing import Callable, NoReturn, TextIO

from teachcam import ending
from teachcam.errors import UserError

__all__ = ["Parser", "UserError", "first_line", "log_to_stderr", "non_negative_float", "positive_int", "run"]


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a wrong option in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def positive_int(text: str) -> int:
    """Convert the value of an option to a whole number of at least 1. For argparse's `type`."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def non_negative_float(text: str) -> float:
    """Convert the value of an option to a number of 0 or more, not infinity. For argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):  # False for NaN, too
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` function and exit the program with its exit code.

    The exit codes are 0 for success, 2 for an error that the user can fix (one line on stderr), and 130 for an
    interruption by Ctrl-C, SIGTERM or SIGHUP (see ending.py). A closed stdout (as with `| head`) is not an error.

    Args:
        main: Does the work. Returns an exit code, or None for 0.
    """
    # Python sets a stream to None if it was closed before the start, as by `>&-`.
    sys.stdout, sys.stderr = sys.stdout or _open_devnull(), sys.stderr or _open_devnull()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a label may have characters that the console's encoding has not
    log_to_stderr()
    try:
        with ending.watched():
            code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = ending.INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        code = 0
    except UnicodeEncodeError as error:
        print(f"error: the name {error.object!a} is not valid UTF-8: rename it", file=sys.stderr)
        code = 2
    except OSError as error:  # for example a full disk, or a folder without write permission
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        _discard_stdout()
        code = 2
    except Exception as error:
        if not _was_interrupted(error):
            raise
        code = ending.INTERRUPTED
    if ending.was_asked():
        ending.leave()
    sys.exit(code)


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether an exception was raised because of Ctrl-C, as by a library that was interrupted at its start."""
    if ending.was_asked():
        return True
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def log_to_stderr() -> None:
    """Print what the project logs (INFO and above) on stderr, the bare message only; other packages are left alone.

    A file that may run as `__main__` must name its logger, as in `logging.getLogger("teachcam.collect.capture")`.
    """
    logger = logging.getLogger("teachcam")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
        # ONNX Runtime's quantization calls logging.info(), which would add a handler to a root logger that has none.
        # All messages would appear twice. So it gets one, which shows what Python itself would show of other packages.
        root = logging.getLogger()
        if not root.handlers:
            others = _StderrHandler()
            others.setLevel(logging.WARNING)
            others.addFilter(lambda record: not record.name.startswith("teachcam"))
            root.addHandler(others)


class _StderrHandler(logging.StreamHandler):
    """Writes to the `sys.stderr` of the moment, which tests and notebooks replace."""

    def __init__(self):
        logging.Handler.__init__(self)  # StreamHandler's own would keep one stream for good

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:
        if not getattr(sys.stderr, "closed", True):  # else there is nowhere to report it
            super().handleError(record)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or the name of its class if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _discard_stdout() -> None:
    """Send the interpreter's last flush to the null device, so that it can't fail again."""
    with contextlib.suppress(OSError):  # it is not a file: then the system does not fail to write it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_devnull() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
