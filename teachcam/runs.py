"""Find the newest run: `runs/latest` is a symbolic link to its folder. Without such links (Windows) a file names it."""

from __future__ import annotations

import os
from pathlib import Path

from teachcam.files import write_atomic

LATEST = Path("runs/latest")


def latest_run() -> Path:
    """Return the folder of the newest run, below the current folder. It may be missing."""
    if LATEST.is_file():
        return LATEST.parent / LATEST.read_text(encoding="utf-8").strip()
    return LATEST


def resolve_latest(path: Path) -> Path:
    """Replace `runs/latest` at the start of a path by the folder of the newest run. Other paths stay as they are."""
    return latest_run() / path.relative_to(LATEST) if LATEST in path.parents else path


def set_latest_run(run: Path) -> None:
    """Make a run's folder the newest run, atomically. Raises OSError if `runs/latest` can't be written."""
    target = os.path.relpath(run.resolve(), LATEST.parent.resolve())
    LATEST.parent.mkdir(exist_ok=True)
    temporary = LATEST.with_name(f".latest.{os.getpid()}")
    try:
        temporary.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):  # Windows allows links to few users
        write_atomic(LATEST, target.encode())
        return
    temporary.replace(LATEST)
