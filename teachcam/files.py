"""Write files so that a crash or a power cut damages nothing, and read those that are damaged all the same.

A file that is written whole is the old one or the new one afterwards, never half of one. Of a file that lines are
added to, only the last line can be cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Iterator


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
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Give an OSError without a path this one. Opening a file names it; writing to it, as on a full disk, does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def append_json_line(path: Path, content: dict) -> None:
    """Add one line of JSON to a file. A line before it that was cut off is ended first. Raises OSError."""
    line = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with naming(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)  # at the end, wherever the file was read


def read_json_lines(path: Path) -> list[dict]:
    """Return the objects in a file of JSON lines. Damaged lines are left out; a file that can't be read has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            lines.append(parse_json(line))
    return [line for line in lines if isinstance(line, dict)]


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
