"""Label the uncertain frames that the live loop saved: one key for each image moves it into the dataset.

A file keeps its content and its name. So the frames of a session stay one session, whatever labels they get.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from teachcam import ending
from teachcam.collect.dataset import append_line, existing_labels, move_to_rejected
from teachcam.collect.names import check_label, name_key, normalize_text
from teachcam.collect.ui.window import Window
from teachcam.drawing import GREEN, WHITE, YELLOW, put_text
from teachcam.errors import DatasetError, UnreadableImage
from teachcam.files import write_atomic
from teachcam.images import is_image, read_image

HELP = (
    "1-9     give it that label",
    "ENTER   the predicted label is right",
    "x       useless image: move it to .rejected",
    "s       skip it: it stays where it is",
    "u       undo",
    "h       show or hide this help",
    "q       quit: the rest stays where it is",
)
NUM_KEYS = 9  # labels beyond the ninth have no key, and are not listed

logger = logging.getLogger(__name__)


class Review:
    """Moves images to the folders of their labels as keys are pressed, and draws the image that is next.

    Attributes:
        labels: In the order of their keys, from 1.
        sorted: How many images were given each label.
    """

    def __init__(self, folder: Path, data: Path, labels: list[str]):
        """Find the images.

        Args:
            folder: Holds `<predicted label>/*.jpg`, as `live/run.py --save-uncertain` writes them.
            data: The dataset's folder, where the images go.
            labels: These get the first keys. The labels of the dataset and the predicted ones follow.

        Raises:
            DatasetError: There is no image in the folder.
        """
        predicted = _class_folders(folder)
        self._images = [path for label in predicted for path in sorted(label.iterdir()) if is_image(path)]
        if not self._images:
            raise DatasetError(f"nothing to review in {folder}: fill it with teachcam live --save-uncertain {folder}")
        self.labels = list(dict.fromkeys([*labels, *existing_labels(data)]))
        for path in predicted:
            if (label := self._label_of(path)) not in self.labels:
                self.labels.append(label)
        self.sorted: Counter[str] = Counter()
        self._folder, self._data = folder, data
        self._next = 0  # index of the image that is shown
        self._done: list[tuple[Path, Path | None]] = []  # the path before, and the path now: None for a skipped image
        self._described: set[tuple[str, str]] = set()  # (session, label) pairs that are in sessions.jsonl
        self._show_help, self._message = False, "h shows help"
        self._image = self._read()

    @property
    def left(self) -> int:
        """The number of images still to be reviewed."""
        return len(self._images) - self._next

    def press(self, key: str) -> None:
        """Act on a key, as Window.show returns it."""
        if key == "h":
            self._show_help = not self._show_help
        elif key == "u":
            self._undo()
        elif key == "s":
            self._advance(None)
        elif key == "x":
            self._advance(move_to_rejected(self._folder, self._images[self._next]))
        elif key in ("\r", "\n"):
            self._give_label(self._label_of(self._images[self._next].parent))
        elif key.isdecimal() and 0 < int(key) <= len(self.labels):
            self._give_label(self.labels[int(key) - 1])

    def draw(self) -> np.ndarray:
        """Return the image that is next, with the predicted label and the keys, uint8 [H, W, 3] BGR."""
        drawn = self._image.copy()
        predicted = self._label_of(self._images[self._next].parent)
        put_text(drawn, f"{predicted}?   {self.left} left")
        put_text(drawn, self._message, 1, YELLOW)
        for line, text in enumerate(HELP if self._show_help else (), 2):
            put_text(drawn, text, line)
        shown = self.labels[:NUM_KEYS]
        for index, label in enumerate(shown):
            text = f"{index + 1} {label}" + (f": {self.sorted[label]}" if self.sorted[label] else "")
            put_text(drawn, text, index - len(shown), GREEN if label == predicted else WHITE)
        return drawn

    def _label_of(self, folder: Path) -> str:
        """Return the predicted label, in the dataset's spelling if it is there in another case or Unicode form."""
        label = normalize_text(folder.name)
        same = [known for known in self.labels if name_key(known) == name_key(label)]
        return label if label in same or not same else same[0]

    def _give_label(self, label: str) -> None:
        try:
            label = check_label(label, existing_labels(self._data))
        except DatasetError as error:
            self._message = str(error)
            return
        target = _move(self._images[self._next], self._data / label)
        session = target.stem.rpartition("_")[0]
        if session and (session, label) not in self._described:
            self._described.add((session, label))
            append_line(self._data, {"session": session, "label": label, "note": "reviewed"})
        self.sorted[label] += 1
        self._advance(target)

    def _advance(self, new_path: Path | None) -> None:
        self._message = new_path.parent.name if new_path else "skipped"
        self._done.append((self._images[self._next], new_path))
        self._next += 1
        self._image = self._read()

    def _undo(self) -> None:
        if not self._done:
            self._message = "nothing to undo"
            return
        path, new_path = self._done.pop()
        if new_path is not None:
            _move(new_path, path.parent)
            self.sorted[new_path.parent.name] -= new_path.parent.parent == self._data
        self._next = self._images.index(path)
        self._image, self._message = self._read(), "undone"

    def _read(self) -> np.ndarray:
        """Read the next image, or an empty one after the last. Unreadable files stay, with a warning."""
        while self.left:
            try:
                return read_image(self._images[self._next])
            except UnreadableImage as error:
                self._message = str(error)
                logger.warning(f"skipped: {error}")
                del self._images[self._next]
        return np.zeros((0, 0, 3), np.uint8)


def review(folder: Path, data: Path, labels: list[str]) -> None:
    """Review a folder in a window until all images are done or the user closes it; print how many got each label.

    Args:
        folder: Holds `<predicted label>/*.jpg`.
        data: The dataset's folder, where the images go.
        labels: These get the first keys.

    Raises:
        DatasetError: There is no image in the folder.
        UserError: No window can be opened here.
    """
    state = Review(folder, data, labels)
    try:
        with ending.only_at_checks(), Window(f"teachcam: review {folder}") as window:
            while state.left and not window.closed:
                ending.check()
                state.press(window.show(state.draw()))
    finally:
        for label, count in sorted(state.sorted.items()):
            print(f"{count} frame{'s' * (count != 1)} of {label} in {data / label}")


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _move(path: Path, folder: Path) -> Path:
    """Move a file into a folder, atomically and without overwriting another file; return its new path."""
    session, underscore, number = path.stem.rpartition("_")
    target = folder / path.name
    while target.exists():
        number = f"{int(number) + 1:04d}" if number.isdecimal() else f"{number}0"
        target = folder / f"{session}{underscore}{number}{path.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, path.read_bytes())  # a rename would fail if the folder is on another disk
    path.unlink()
    return target
