"""Find runs and follow them. Each is a folder below runs/, written by train/finetune.py.

`runs/latest` is a symbolic link to the newest one's folder. Without such links (Windows) it is a file that names it.
While a run is not finished, its `.state/` holds what it needs to continue.
"""

from __future__ import annotations

import os
from pathlib import Path

from teachcam.files import read_json_lines, write_atomic

LATEST = Path("runs/latest")
STATE_FOLDER = ".state"  # hidden, so that it can't be taken for a label's folder, whatever --out is
CONFIG_FILE = "config.json"  # in STATE_FOLDER
EPOCHS_FILE = "epochs.jsonl"


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


def interrupted_runs() -> list[Path]:
    """Return the folders of the interrupted runs in runs/, the newest last."""
    found = Path("runs").glob(f"*/{STATE_FOLDER}/{CONFIG_FILE}")
    by_time = sorted(found, key=lambda path: path.stat().st_mtime)
    return [path.parent.parent for path in by_time if not path.parent.parent.is_symlink()]


def read_epochs(folder: Path) -> list[dict]:
    """Return the metrics logged in a run's folder, in order. An epoch that was repeated after a resume appears once."""
    epochs: dict[tuple[str, int], dict] = {}
    for metrics in read_json_lines(folder / EPOCHS_FILE, "epoch"):
        training, number = metrics.get("training"), metrics.get("epoch")
        if isinstance(training, str) and isinstance(number, int):
            epochs[training, number] = metrics
    return list(epochs.values())
