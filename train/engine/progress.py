"""What a training says of itself while it runs."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from tqdm import tqdm


class Progress:
    """The events of a training. This one keeps them to itself; others show them, or write them down."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def say(self, line: str) -> None:
        """Tell the user something, in one line."""

    def begin(self, name: str, epochs: int, frames: int, done: int = 0) -> None:
        """Begin a training of so many epochs, of so many frames each; `done` epochs were done before."""

    def frames(self, count: int) -> None:
        """Tell that so many frames were learned from."""

    def epoch(self, line: dict) -> None:
        """Tell an epoch's figures."""


class ProgressBar(Progress):
    """A bar on stderr for each training: images, images a second, time left; and the figures of the last epoch.

    Figures also go into `folder`: a line an epoch of epochs.jsonl, and TensorBoard's events where it is installed.
    """

    def __init__(self, folder: Path):
        self._name, self._epochs = "", 0
        self._lines = folder / "epochs.jsonl"
        if self._lines.exists() and not self._lines.read_bytes().endswith(b"\n"):
            self._write("\n")  # a kill cut the last line
        self._bar: tqdm | None = None
        self._events = _events(folder)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._events.close()

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def begin(self, name: str, epochs: int, frames: int, done: int = 0) -> None:
        """Begin another bar."""
        if self._bar is not None:
            self._bar.close()
        self._name, self._epochs = name, epochs
        total, initial = epochs * frames, done * frames
        self._bar = tqdm(total=total, initial=initial, desc=name, unit="img", disable=None, smoothing=0.05)

    def frames(self, count: int) -> None:
        """Move the bar."""
        self._bar.update(count)

    def epoch(self, line: dict) -> None:
        """Show an epoch's figures, and write them down."""
        shown = f"loss {line['loss']:.3f}"
        if line["validation_accuracy"] is not None:
            shown += f", held-out {line['validation_accuracy']:.3f}"
        self._bar.set_postfix_str(f"{line['epoch']}/{self._epochs}, {shown}")
        self._write(json.dumps({"training": self._name, "epochs": self._epochs, **line}) + "\n")
        if self._events is not None:
            for name in ("loss", "validation_loss", "validation_accuracy"):
                if line[name] is not None:
                    self._events.add_scalar(f"{self._name}/{name}", line[name], line["epoch"])
            self._events.flush()

    def _write(self, text: str) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(text)


def read_epochs(folder: Path) -> list[dict]:
    """Return the lines of a run's epochs.jsonl, the last one of each epoch; the newest may be half written."""
    lines: dict[tuple[str, int], dict] = {}
    path = folder / "epochs.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        lines[line["training"], line["epoch"]] = line
    return list(lines.values())


def _events(folder: Path):
    """Return a writer of TensorBoard's events, or None where tensorboard is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from torch.utils.tensorboard import SummaryWriter
    except Exception:  # one that is broken is as good as none
        return None
    return SummaryWriter(str(folder))
