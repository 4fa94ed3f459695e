"""Show the progress of a training, and log the metrics of its epochs."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from teachcam.files import naming
from teachcam.runs import EPOCHS_FILE


class Progress:
    """Receives the events of a training. This class ignores them; a subclass shows or writes them."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def say(self, line: str) -> None:
        """Receive one line for the user."""

    def begin(self, name: str, num_epochs: int, num_images: int, epochs_done: int = 0) -> None:
        """Receive the start of a training.

        Args:
            name: Name of the training.
            num_epochs: Number of its epochs, with those done before an interruption.
            num_images: Number of images per epoch.
            epochs_done: Number of epochs that were done before an interruption.
        """

    def advance(self, num_images: int) -> None:
        """Receive the number of images that were just trained on."""

    def epoch(self, metrics: dict) -> None:
        """Receive the metrics of an epoch."""


class ProgressBar(Progress):
    """Shows a bar on stderr for each training: images, images per second, time left and the last epoch's metrics.

    It also appends the metrics to `epochs.jsonl` in the run's folder, one line per epoch, and writes TensorBoard events
    if TensorBoard is installed.
    """

    def __init__(self, folder: Path):
        """Open the log in the run's folder; an existing log is continued."""
        self._name, self._num_epochs = "", 0
        self._log = folder / EPOCHS_FILE
        if self._log.exists() and not self._log.read_bytes().endswith(b"\n"):
            self._write("\n")  # the process was killed while it wrote the last line
        self._bar = tqdm(disable=True)
        self._tensorboard = _tensorboard_writer(folder)

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def begin(self, name: str, num_epochs: int, num_images: int, epochs_done: int = 0) -> None:
        """Replace the bar by a new one."""
        self._bar.close()
        self._name, self._num_epochs = name, num_epochs
        total, initial = num_epochs * num_images, epochs_done * num_images
        self._bar = tqdm(total=total, initial=initial, desc=name, unit="img", disable=None, smoothing=0.05)

    def advance(self, num_images: int) -> None:
        """Move the bar."""
        self._bar.update(num_images)

    def epoch(self, metrics: dict) -> None:
        """Show the metrics of an epoch, and log them."""
        shown = f"loss {metrics['loss']:.3f}"
        if metrics["validation_accuracy"] is not None:
            shown += f", validation accuracy {metrics['validation_accuracy']:.3f}"
        self._bar.set_postfix_str(f"{metrics['epoch']}/{self._num_epochs}, {shown}")
        self._write(json.dumps({"training": self._name, "epochs": self._num_epochs, **metrics}) + "\n")
        if self._tensorboard is not None:
            for name in ("loss", "validation_loss", "validation_accuracy"):
                if metrics[name] is not None:
                    self._tensorboard.add_scalar(f"{self._name}/{name}", metrics[name], metrics["epoch"])

    def _write(self, text: str) -> None:
        with naming(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(text)


class _TensorBoardEvents:
    """A file of TensorBoard events. TensorBoard's own writer has a thread, which shows a traceback on a full disk."""

    def __init__(self, folder: Path):
        """Begin the file. Raises ImportError or others if TensorBoard is not installed as it should be, and OSError."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn about each other
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._event, self._summary, self._record_writer = Event, Summary, RecordWriter
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._write(file_version="brain.Event:2")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write a value."""
        self._write(step=step, summary=self._summary(value=[self._summary.Value(tag=name, simple_value=value)]))

    def _write(self, **fields: object) -> None:
        with naming(self._path), self._path.open("ab") as file:
            self._record_writer(file).write(self._event(wall_time=time.time(), **fields).SerializeToString())


def _tensorboard_writer(folder: Path) -> _TensorBoardEvents | None:
    """Return a writer of TensorBoard events, or None if TensorBoard is not installed."""
    try:
        return _TensorBoardEvents(folder)
    except OSError:  # a full disk
        raise
    except Exception:  # a broken installation fails in many ways
        return None
