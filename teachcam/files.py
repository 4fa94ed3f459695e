"""Write files atomically: after a crash or a power cut the old file or the new one is there, never half of one."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator


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
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def expand(path: Path | str) -> Path:
    """Return a path whose leading `~` or `~user` stands for a home folder. A shell leaves it in `--data=~/x`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user: it is an ordinary name
        return Path(path)
