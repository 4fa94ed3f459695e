"""Save the state of a training, so that it can continue after an interruption.

    runs/<name>/.state/<training>.pt

An epoch depends only on the seed, its number and the state at the end of the epoch before. So saving that state is
enough to continue with the same result. The folder is deleted when the run is complete.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from teachcam.errors import TrainingError
from teachcam.train.engine.distributed import ProcessGroup
from teachcam.train.model.checkpoint import load_tensors, save_tensors

T = TypeVar("T")
MAX_SAVE_FRACTION = 0.05  # of the time may go into saving: AlexNet with Adam's state is over a gigabyte


class TrainingState:
    """Saves states by name in a folder. Without a folder it saves nothing."""

    def __init__(self, folder: Path | None = None, processes: ProcessGroup | None = None):
        self._folder, self._processes = folder, processes or ProcessGroup()
        self._save_seconds, self._saved_at = 0.0, float("-inf")  # duration and time of the last save

    def has(self, name: str) -> bool:
        """Return whether a state of that name was saved."""
        return self._processes.broadcast(self._folder is not None and (self._folder / f"{name}.pt").exists())

    def read(self, name: str) -> dict | None:
        """Return the saved state of that name, with tensors on the CPU, or None if there is none."""
        if self._folder is None:
            return None
        return self._processes.broadcast(
            self._read(self._folder / f"{name}.pt") if self._processes.is_main_process else None
        )

    @staticmethod
    def _read(path: Path) -> dict | None:
        try:
            return load_tensors(path)
        except FileNotFoundError:
            return None
        except ValueError:
            raise TrainingError(f"{path} is damaged: delete it, and the run continues from an earlier point") from None

    def write(self, name: str, state: Callable[[], dict], last: bool = False) -> None:
        """Save a state under a name, unless too much time went into saving.

        Args:
            name: Name of the state.
            state: Returns tensors and plain values; called only if they are saved.
            last: Whether to save in any case.
        """
        due = last or time.monotonic() - self._saved_at >= self._save_seconds / MAX_SAVE_FRACTION
        if self._folder is None or not self._processes.is_main_process or not due:
            return
        started = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self._folder / f"{name}.pt", state())
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """Return the saved value of that name, or compute and save it.

        A resumed run thus repeats the decisions that depended on the clock.
        """
        saved = self.read(name)
        if saved is None:
            value = self._processes.broadcast(compute())
            self.write(name, lambda: {"value": value}, last=True)
            return value
        return saved["value"]

    def clear(self) -> None:
        """Delete all saved states."""
        if self._folder is not None and self._processes.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)
