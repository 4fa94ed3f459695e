"""Files that appear whole or not at all, even if the power fails."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, even if the power fails: beside it, fsync, rename."""
    with open_atomic(path) as file:
        file.write(content)


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write as `write_atomic` does: it is there, whole, when the block ends without an error."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(3)}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
