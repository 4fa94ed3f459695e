"""The folder of a run while it is not finished: its lock, its options, and how to find it again.

`.state/` holds the options of the run, and the state from which it can continue after an interruption (resume.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import filelock

from teachcam.errors import TrainingError
from teachcam.files import expand, parse_json, write_atomic
from teachcam.runs import CONFIG_FILE, EPOCHS_FILE, STATE_FOLDER, interrupted_runs
from teachcam.train.config.run_config import RunConfig

LOCK_FILE = ".lock"  # hidden, as STATE_FOLDER


def load_interrupted_run(run: Path | None = None) -> RunConfig:
    """Return the options of an interrupted run, to continue with `train(config, resume=True)`.

    Args:
        run: folder of the run; None for the newest interrupted run in runs/.

    Raises:
        TrainingError: There is no such run, it is finished, or its options can't be read.
    """
    if run is None:
        runs = interrupted_runs()
        if not runs:
            raise TrainingError("--resume: no run in runs/ was interrupted")
        run = runs[-1]
    path = run / STATE_FOLDER / CONFIG_FILE
    try:
        return replace(RunConfig.from_json(parse_json(path.read_text())["config"]), out=run)
    except FileNotFoundError:
        reason = "the run is finished" if (run / "metrics.json").exists() else "there is no run"
        raise TrainingError(f"--resume {run}: {reason}") from None
    except (ValueError, KeyError, TypeError, TrainingError):
        raise TrainingError(f"--resume {run}: {path} is damaged; start the training again") from None


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Make the run's folder and lock it against other processes. Raises TrainingError if one has locked it."""
    out.mkdir(parents=True, exist_ok=True)  # before training: a folder that can't be made is known at once
    try:
        with filelock.FileLock(out / LOCK_FILE, timeout=0):
            yield
    except filelock.Timeout:
        raise TrainingError(f"{out}: another process is training into it; wait for it, or give another --out") from None


def begin_run(config: RunConfig, identity: dict[str, str]) -> None:
    """Save the options of a new run, and delete the logs of an earlier run in the same folder."""
    state = config.out / STATE_FOLDER
    if (state / CONFIG_FILE).exists():
        raise TrainingError(
            f"--out {config.out}: a run was interrupted there: continue it with --resume {config.out}, "
            f"or delete {state}"
        )
    shutil.rmtree(state, ignore_errors=True)
    for log in (config.out / EPOCHS_FILE, *config.out.glob("events.out.tfevents.*")):
        log.unlink(missing_ok=True)
    state.mkdir()
    # Absolute paths: the run may be resumed from another folder.
    paths = {name: getattr(config, name) for name in ("data", "train_list", "test_list")}
    absolute = {name: path.resolve() for name, path in paths.items() if path}
    if config.weights not in ("imagenet", "none"):
        absolute["weights"] = str(expand(config.weights).resolve())
    saved = {"config": replace(config, **absolute).to_json(), **identity}
    write_atomic(state / CONFIG_FILE, json.dumps(saved, indent=1).encode())


def check_unchanged(out: Path, identity: dict[str, str]) -> None:
    """Raise TrainingError if the images or their split have changed since the run began."""
    saved = json.loads((out / STATE_FOLDER / CONFIG_FILE).read_text())
    if any(saved.get(name) != value for name, value in identity.items()):
        raise TrainingError(f"--resume {out}: the dataset has changed since the run began; start a new run")
