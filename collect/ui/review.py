"""Sorting the frames that the live loop was unsure of into the dataset: one key each.

A file moves as it is, with its name: the frames of a session stay one session, whatever labels they get.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import append_line, move_to_rejected
from teachcam.collect.ui.window import Window, put_text
from teachcam.errors import DatasetError, UnreadableImage
from teachcam.files import write_atomic
from teachcam.images import is_image, read_image

HELP = (
    "1-9     it is that label",
    "ENTER   it is what was guessed",
    "x       it is of no use (moves to .rejected)",
    "s       skip it, it stays where it is",
    "u       undo",
    "h       this help",
    "q       quit, the rest stays",
)
GREEN, WHITE, YELLOW = (90, 220, 90), (255, 255, 255), (60, 220, 255)


class Review:
    """What the keys do, and what the window shows. Raises DatasetError where there is nothing to review."""

    def __init__(self, folder: Path, data: Path, labels: list[str]):
        """Sort `folder/<guess>/*.jpg` into `data`, under `labels` first, then those of the dataset and the guesses."""
        found = _class_folders(folder)
        self._waiting = [path for guess in found for path in sorted(guess.iterdir()) if is_image(path)]
        if not self._waiting:
            raise DatasetError(f"nothing to review in {folder}: live/run.py --save-uncertain {folder} fills it")
        known = [path.name for path in [*_class_folders(data), *found]]
        self.labels = list(dict.fromkeys([*labels, *known]))
        self.sorted: Counter[str] = Counter()
        self._folder, self._data = folder, data
        self._next = 0
        self._done: list[tuple[Path, Path | None]] = []  # where each was, and where it is now
        self._noted: set[tuple[str, str]] = set()
        self._help, self._message = False, "h helps"
        self._image = self._read()

    @property
    def left(self) -> int:
        """How many are still to be looked at."""
        return len(self._waiting) - self._next

    def press(self, key: str) -> None:
        """Do what a key stands for."""
        if key == "h":
            self._help = not self._help
        elif key == "u":
            self._undo()
        elif key == "s":
            self._go_on(None)
        elif key == "x":
            self._go_on(move_to_rejected(self._folder, self._waiting[self._next]))
        elif key in ("\r", "\n"):
            self._sort(self._waiting[self._next].parent.name)
        elif key.isdecimal() and 0 < int(key) <= len(self.labels):
            self._sort(self.labels[int(key) - 1])

    def draw(self) -> np.ndarray:
        """Return the picture that is asked about with all that is to know, uint8 [H, W, 3] BGR."""
        picture = self._image.copy()
        guess = self._waiting[self._next].parent.name
        put_text(picture, f"{guess}?   {self.left} left")
        put_text(picture, self._message, 1, YELLOW)
        for index, text in enumerate(HELP if self._help else ()):
            put_text(picture, text, index + 2)
        for index, label in enumerate(self.labels[:9]):
            text = f"{index + 1} {label}" + (f": {self.sorted[label]}" if self.sorted[label] else "")
            put_text(picture, text, index - min(9, len(self.labels)), GREEN if label == guess else WHITE)
        return picture

    def _sort(self, label: str) -> None:
        path = self._waiting[self._next]
        target = _move(path, self._data / label)
        session = target.stem.rpartition("_")[0]
        if session and (session, label) not in self._noted:
            self._noted.add((session, label))
            append_line(self._data, {"session": session, "label": label, "note": "reviewed"})
        self.sorted[label] += 1
        self._go_on(target)

    def _go_on(self, now: Path | None) -> None:
        path = self._waiting[self._next]
        self._message = f"{now.parent.name}" if now else "skipped"
        self._done.append((path, now))
        self._next += 1
        self._image = self._read()

    def _undo(self) -> None:
        if not self._done:
            self._message = "nothing to undo"
            return
        path, now = self._done.pop()
        if now is not None:
            _move(now, path.parent)
            self.sorted[now.parent.name] -= now.parent.parent == self._data
        self._next = self._waiting.index(path)
        self._image, self._message = self._read(), "undone"

    def _read(self) -> np.ndarray | None:
        """Read the next picture; those that can't be read are said, and stay."""
        while self.left:
            try:
                return read_image(self._waiting[self._next])
            except UnreadableImage as error:
                self._message = str(error)
                print(f"skipped: {error}", file=sys.stderr)
                del self._waiting[self._next]
        return None


def review(folder: Path, data: Path, labels: list[str]) -> None:
    """Show one after the other until all are sorted or the window is closed; print how many went where."""
    task = Review(folder, data, labels)
    try:
        with Window(f"teachcam: review {folder}") as window:
            while task.left and not window.closed:
                task.press(window.show(task.draw()))
    finally:
        for label, count in sorted(task.sorted.items()):
            print(f"{count} frames of {label} in {data / label}")


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _move(path: Path, folder: Path) -> Path:
    """Move a file into a folder, whole at every moment, and never over another one."""
    session, underscore, number = path.stem.rpartition("_")
    target = folder / path.name
    while target.exists():
        number = f"{int(number) + 1:04d}" if number.isdecimal() else f"{number}0"
        target = folder / f"{session}{underscore}{number}{path.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, path.read_bytes())  # not a rename: it may be another disk
    path.unlink()
    return target
