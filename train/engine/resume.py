"""Where an interrupted training goes on: what a run has finished, and where it stands in what it has not.

    runs/<name>/.state/<what>.pt

An epoch depends on the seed and its own number alone, so what stands at the end of one is all that the next one needs.
The folder goes when the run is done.
"""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from teachcam.errors import TrainingError
from teachcam.files import open_atomic
from teachcam.train.engine.distributed import Workers

T = TypeVar("T")
SHARE = 0.05  # of the time, at most, that goes into writing: an Adam of AlexNet is over a gigabyte


class TrainingState:
    """Keeps what it is given in a folder, or nothing where there is none."""

    def __init__(self, folder: Path | None = None, workers: Workers | None = None):
        self._folder, self._workers = folder, workers or Workers()
        self._cost, self._written = 0.0, float("-inf")  # seconds that the last state took; when it was written

    def has(self, name: str) -> bool:
        """Say whether anything was written under a name."""
        return self._workers.broadcast(self._folder is not None and (self._folder / f"{name}.pt").exists())

    def read(self, name: str) -> dict | None:
        """Return what was written under a name last, its tensors on the CPU; None where there is nothing."""
        if self._folder is None:
            return None
        return self._workers.broadcast(self._read(name) if self._workers.is_main_process else None)

    def _read(self, name: str) -> dict | None:
        path = self._folder / f"{name}.pt"
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
            raise TrainingError(f"{path} is damaged: delete it, and the run goes on from before it") from None

    def write(self, name: str, state: Callable[[], dict], last: bool = False) -> None:
        """Keep a state of tensors and plain values; if it is not the `last`, only if that takes few of the seconds."""
        due = last or time.monotonic() - self._written >= self._cost / SHARE
        if self._folder is None or not self._workers.is_main_process or not due:
            return
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        with open_atomic(self._folder / f"{name}.pt") as file:
            torch.save(state(), file)
        self._written = time.monotonic()
        self._cost = self._written - began

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return a plain value as it was computed the first time: what depends on the clock is not decided twice."""
        kept = self.read(name)
        if kept is None:
            value = self._workers.broadcast(compute())
            self.write(name, lambda: {"value": value}, last=True)
            return value
        return kept["value"]

    def clear(self) -> None:
        """Forget everything."""
        if self._folder is not None and self._workers.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)
