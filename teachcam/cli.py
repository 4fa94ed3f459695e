"""What every command shares: one-line errors, exit codes, and a parser that keeps to both.

Exceptions a user can mend, each raised with one line that says what was wrong and what to do:

    UserError
    ├── CameraError      collect/camera.py    no such camera, or it stopped sending
    ├── DatasetError     collect/dataset.py   nothing to read, a label that can't be a folder, a full disk
    ├── ContractError    train/contract.py    a model without a contract, or with one of another version
    ├── TrainingError    train/weights.py     too few labels, weights that can't be had
    ├── CheckpointError  train/checkpoint.py  a file that is not a whole checkpoint
    ├── ExportError      export/parity.py     a graph that is not what was trained
    └── ModelError       export/providers.py  a model that can't be loaded or run
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Callable, NoReturn, TextIO

from teachcam.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse, saying what is wrong in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and leave the program.

    Exit codes: 0 done, 2 the user can mend it (one line on stderr), 130 interrupted, by Ctrl-C, SIGTERM or SIGHUP.
    A reader of our output that went away (`| head`) is no error.
    """
    for name in ("SIGTERM", "SIGHUP"):  # the latter: its terminal was closed; Windows has none
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None where closed, as by `>&-`
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _discard_stdout()
        code = 0
    except OSError as error:  # a full disk, a folder that can't be written: never ours to mend
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        _discard_stdout()
        code = 2
    sys.exit(code)


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere, instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
