"""The folder of a run while it is not finished: its lock and its options.

`.state/` holds the options of the run, and the state from which it can continue after an interruption (resume.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from teachcam.errors import TrainingError
from teachcam.files import expand, write_atomic
from teachcam.runs import CONFIG_FILE, EPOCHS_FILE, STATE_FOLDER

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig

LOCK_FILE = ".lock"  # hidden, as STATE_FOLDER
FORMAT = 2  # of the state: raise it when a run that an earlier version began can't be continued


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Make the run's folder and lock it against other processes. Raises TrainingError if one has locked it."""
    out.mkdir(parents=True, exist_ok=True)  # before training: a folder that can't be made is known at once
    try:
        with filelock.FileLock(out / LOCK_FILE, timeout=0):
            yield
    except filelock.Timeout:
        raise TrainingError(f"{out}: another process is training into it; wait for it, or give another --out") from None


def begin_run(out: Path, config: RunConfig, identity: dict[str, str]) -> None:
    """Save the options of a new run, and delete the logs of an earlier run in the same folder."""
    state = out / STATE_FOLDER
    if (state / CONFIG_FILE).exists():
        raise TrainingError(
            f"--out {out}: a run was interrupted there: continue it with --resume {out}, or delete {state}"
        )
    shutil.rmtree(state, ignore_errors=True)
    for log in (out / EPOCHS_FILE, *out.glob("events.out.tfevents.*")):
        log.unlink(missing_ok=True)
    state.mkdir()
    # Absolute paths: the run may be resumed from another folder.
    paths = {name: getattr(config, name) for name in ("data", "train_list", "test_list")}
    absolute = {name: path.resolve() for name, path in paths.items() if path}
    if config.weights not in ("imagenet", "none"):
        absolute["weights"] = str(expand(config.weights).resolve())
    saved = {"format": FORMAT, "config": replace(config, **absolute).to_json(), **identity}
    write_atomic(state / CONFIG_FILE, json.dumps(saved, indent=1).encode())


def continue_run(out: Path, config: RunConfig, identity: dict[str, str]) -> Iterator[str]:
    """Prepare to continue a run. One that an earlier version began is begun again, and a line for the user says so.

    Args:
        out: Folder of the run.
        config: Options of the run.
        identity: What must not change: hashes of the images, and of what they are used for.

    Raises:
        TrainingError: The images or their split have changed since the run began.
    """
    path = out / STATE_FOLDER / CONFIG_FILE
    saved = json.loads(path.read_text())
    if saved.get("format") != FORMAT:
        path.unlink()
        begin_run(out, config, identity)
        yield "another version of teachcam began this run: it begins again"
    elif any(saved.get(name) != value for name, value in identity.items()):
        raise TrainingError(f"--resume {out}: the dataset has changed since the run began; start a new run")
