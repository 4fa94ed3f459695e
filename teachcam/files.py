"""Write files so that a crash or a power cut damages nothing, and read those that are damaged all the same.

A file that is written whole is the old one or the new one afterwards, never half of one. Of a file that lines are
added to, only the last line can be cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Iterator

from teachcam import ending
from teachcam.json_lines import scan_json_lines


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with open_atomic(path) as file:
        file.write(content)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for atomic writing: `path` is replaced when the block ends without an error, else left as it was.

    The bytes go to a hidden file in the same folder, which is flushed to the disk and then renamed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(3)}.tmp")

    def finish() -> None:
        """Do nothing: the thread that writes the file finishes it."""

    ending.hold(finish)
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        ending.release(finish)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Give an OSError without a path this one. Opening a file names it; writing to it, as on a full disk, does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def append_json_line(path: Path, content: dict, sync: bool = False) -> None:
    """Add one line of JSON to a file. A line before it that was cut off is ended first. Raises OSError.

    Args:
        path: The file, made if it is missing.
        content: What the line describes.
        sync: Wait until the line is on the disk, so that a power cut leaves it there: some milliseconds.
    """
    line = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with naming(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)  # at the end, wherever the file was read
        if sync:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Keep other programs out that lock the same file, and wait for those. Raises OSError if it can't be made.

    Where a system or a network folder has no such locks, nobody is kept out.
    """
    with path.open("ab") as file:
        if sys.platform != "win32":
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)  # closing the file ends it, and so does the end of the program
        yield


def read_json_lines(path: Path, key: str = "") -> list[dict]:
    """Return the objects in a file of JSON lines that may be damaged. A file that can't be read has none.

    Args:
        path: The file.
        key: Objects with this key are found in damaged lines, too.
    """
    return scan_json_lines(path, key).objects


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text describes. Raises ValueError for other text, also for text that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def expand(path: Path | str) -> Path:
    """Return a path whose leading `~` or `~user` stands for a home folder. A shell leaves it in `--data=~/x`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user: it is an ordinary name
        return Path(path)
