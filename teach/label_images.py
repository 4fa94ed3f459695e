"""Add, rename, order and remove the labels of a dataset, and move their images. No image is deleted.

Each method that changes something makes one change of the dataset's History, which can be undone.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Callable, TypeVar, cast

from teachcam.collect.changes import Outcome, Step, count_images, is_visible_name
from teachcam.collect.dataset import (
    REJECTED,
    check_label,
    image_files,
    label_folders,
    list_samples,
    normalize_text,
)
from teachcam.collect.history import History
from teachcam.collect.label_order import LabelEntry, complete_order, free_color, read_order, write_order
from teachcam.errors import DatasetError
from teachcam.images import is_image

MAX_REJECTED_SHOWN = 2000

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _change(method: _Method) -> _Method:
    """Make a method that changes the dataset: for one thread at a time, and with a look at the files after it."""

    @functools.wraps(method)
    def change(self: LabelImages, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            result = method(self, *args, **kwargs)
            self.refresh()
            return result

    return cast(_Method, change)


class LabelImages:
    """Knows the files of each label. Any thread may call it.

    Attributes:
        data: The dataset's folder.
        lock: Held while anything is changed, or recorded.
        history: History of the dataset.
        files: The file names of each label's images, sorted: recorded ones by time. The labels are in the user's order.
        colors: The number of each label's color.
        sessions: The number of sessions of each label.
        places: The places that were named.
        num_rejected: How many images are in data/.rejected/.
    """

    def __init__(self, data: Path, on_change: Callable[[], object] = lambda: None):
        """Make the folder if it is missing, and list its files.

        Args:
            data: The dataset's folder.
            on_change: Called after each change of the images, in the thread that made it.
        """
        self.data, self.lock, self._on_change = data, threading.RLock(), on_change
        self.files: dict[str, list[str]] = {}
        self.colors: dict[str, int] = {}
        # Of each label. There are two if its name is there in two forms of Unicode, as after copying from macOS.
        self._folders: dict[str, list[Path]] = {}
        self._order: list[LabelEntry] = []
        self.sessions: Counter[str] = Counter()
        self.places: set[str] = set()
        self.num_rejected = 0
        self._recorded: str | None = None  # the label that is being recorded
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"can't make {data}: {error.strerror}") from None
        self.history = History(data)
        self._list()

    def refresh(self) -> None:
        """List the files again: another program may have changed them."""
        with self.lock:
            before = self.files
            self._list()
            if self.files != before:
                self._on_change()

    def _list(self) -> None:
        folders: dict[str, list[Path]] = {}
        for folder in label_folders(self.data):
            folders.setdefault(normalize_text(folder.name), []).append(folder)
        self._folders = folders
        files = {
            label: sorted({path.name for folder in own for path in _shown(image_files(folder))})
            for label, own in folders.items()
        }
        self._refresh_order(files)
        self.files = {entry.name: files[entry.name] for entry in self._order}
        try:
            samples = list_samples(self.data)
        except DatasetError:  # no image yet
            samples = []
        self.sessions = Counter(label for label, _ in {(sample.label, sample.session) for sample in samples})
        self.places = {sample.scene for sample in samples if sample.scene != sample.session}
        self.num_rejected = sum(len(_shown(image_files(folder))) for folder in self._rejected_folders())

    def note(self, path: Path) -> None:
        """Take note of a file that was just recorded. The recorder's thread calls this."""
        names = self.files.setdefault(path.parent.name, [])
        if path.name not in names:  # nor has `refresh` seen it
            names.append(path.name)
        self._on_change()

    def check_exists(self, label: str) -> None:
        """Raise DatasetError if there is no such label."""
        if label not in self.files:
            raise DatasetError(f"there is no label {label[:100]}")

    def images(self, label: str) -> list[str]:
        """Return the file names of a label's images, the newest first. Raises DatasetError."""
        with self.lock:
            self.check_exists(label)
            return self.files[label][::-1]

    # Undo

    def begin_recording(self, session: str, label: str) -> None:
        """Note a recording of a label, which then can't be renamed or removed. Raises DatasetError on a full disk."""
        self.history.begin_recording(session, label)
        self._recorded = label

    def end_recording(self) -> None:
        """Make the recording that has ended the last change."""
        with self.lock:
            self._recorded = None
            try:
                self.history.end_recording()
            finally:
                self.refresh()

    def check_nothing_is_recorded(self) -> None:
        """Raise DatasetError if a recording is going on."""
        if self._recorded is not None:
            raise DatasetError("let go of the button first: a recording is going on")

    @_change
    def undo(self) -> str:
        """Take the last change back, whatever it was. Returns a sentence about it. Raises DatasetError."""
        self.check_nothing_is_recorded()
        return self.history.undo() or "nothing to undo"

    @_change
    def redo(self) -> str:
        """Do again what was undone last. Returns a sentence about it. Raises DatasetError."""
        self.check_nothing_is_recorded()
        return self.history.redo() or "nothing to redo"

    # Labels

    @_change
    def add(self, label: str) -> None:
        """Add a label without images, the last one. Raises DatasetError."""
        label = self._check_new(label)
        self.history.apply(f"the new label {label}", self._adding_steps(label))

    @_change
    def rename(self, label: str, name: str) -> None:
        """Give a label another name; it keeps its place and color. Raises DatasetError."""
        self._check_not_recorded(label)
        name = self._check_new(name, label)
        first, *others = self._folders.get(label, [self.data / label])
        steps = [Step("move", first.name, name)]
        for folder in others:
            steps += [Step("move", self._relative(path), f"{name}/{path.name}") for path in image_files(folder)]
            steps.append(Step("folder", folder.name, None))
        entries = [LabelEntry(name, entry.color) if entry.name == label else entry for entry in self._order]
        self.history.apply(f"the new name {name} (before: {label})", [*steps, self._ordering_step(entries)])

    @_change
    def remove(self, label: str) -> int:
        """Move all images of a label to data/.rejected/. Returns their number. Raises DatasetError."""
        self._check_not_recorded(label)
        steps, is_empty = [], True
        for folder in self._folders.get(label, []):
            images = sorted(image_files(folder))
            steps += [_rejecting_step(path) for path in images]
            if {path.name for path in folder.iterdir()} == {path.name for path in images}:
                steps.append(Step("folder", folder.name, None))
            else:
                is_empty = False
        if is_empty:
            steps.append(self._ordering_step([entry for entry in self._order if entry.name != label]))
        images_text = f" with {count_images(len(self.files[label]))}" if self.files[label] else ""
        return len(self.history.apply(f"the removal of the label {label}{images_text}", steps).moved)

    @_change
    def order(self, label: str, before: str | None) -> None:
        """Put a label in front of another one, or to the end if `before` is None. Raises DatasetError."""
        for one in (label, before):
            if one is not None:
                self.check_exists(one)
        if label == before:
            return
        entries = [entry for entry in self._order if entry.name != label]
        names = [entry.name for entry in entries]
        index = len(entries) if before is None else names.index(before)
        entries[index:index] = [entry for entry in self._order if entry.name == label]
        if entries != self._order:
            self.history.apply(f"the new place of {label} among the labels", [self._ordering_step(entries)])

    # Images

    def path(self, label: str, name: str) -> Path:
        """Return the path of an image. Raises DatasetError if there is none of that name."""
        with self.lock:
            self.check_exists(label)
            if name not in self.files[label]:
                raise DatasetError(f"{label} has no image {name[:100]}")
            paths = [folder / name for folder in self._folders.get(label, [])]
            return next((path for path in paths if path.exists()), self.data / label / name)

    @_change
    def move(self, label: str, names: list[str], to: str | None) -> str:
        """Move images to another label, or out of the dataset if `to` is None.

        Returns:
            A sentence about it.

        Raises:
            DatasetError: There are no such labels, or none of the images is there.
        """
        self.check_exists(label)
        if to is not None:
            self.check_exists(to)
        if label == to:
            raise DatasetError(f"the images are in {label} already")
        known = set(self.files[label])
        wanted = dict.fromkeys(names)
        paths = [path for path in (self.path(label, name) for name in wanted if name in known) if path.exists()]
        _check_any(paths, label, len(wanted))
        if to is None:
            steps = [_rejecting_step(path) for path in paths]
            outcome = self.history.apply(f"{count_images(len(paths))} taken out of {label}", steps)
            return _describe("took", outcome, len(wanted), f"out of {label}")
        folder = self._folders.get(to, [self.data / to])[0].name
        steps = [Step("move", self._relative(path), f"{folder}/{path.name}") for path in paths]
        outcome = self.history.apply(f"{count_images(len(paths))} moved from {label} to {to}", steps)
        return _describe("moved", outcome, len(wanted), f"to {to}")

    # Images in data/.rejected/

    def rejected(self) -> list[dict[str, str]]:
        """Return the label and the file name of images in data/.rejected/, the one that was moved last first."""
        dated = []
        with self.lock:
            for path in (path for folder in self._rejected_folders() for path in _shown(image_files(folder))):
                with contextlib.suppress(FileNotFoundError):  # another program has taken it back
                    dated.append((path.stat().st_ctime_ns, path))  # on Linux and macOS, the time of the move
        newest = [path for _, path in sorted(dated, reverse=True)[:MAX_REJECTED_SHOWN]]
        return [{"label": path.parent.name, "name": path.name} for path in newest]

    def rejected_path(self, label: str, name: str) -> Path:
        """Return the path of an image in data/.rejected/. Raises DatasetError if there is none of that name."""
        path = self.data / REJECTED / label / name
        if not (is_visible_name(label) and is_visible_name(name) and is_image(path)):
            raise DatasetError(f"there is no image {name[:100]} of {label[:100]} to restore")
        return path

    @_change
    def restore(self, label: str, names: list[str]) -> str:
        """Move images from data/.rejected/ back to their label, which is made again if it is gone.

        Returns:
            A sentence about it.

        Raises:
            DatasetError: None of the images is there, or the label can't be made.
        """
        paths, wanted = [], dict.fromkeys(names)
        for name in wanted:
            with contextlib.suppress(DatasetError):
                paths.append(self.rejected_path(label, name))
        _check_any(paths, label, len(wanted))
        to = normalize_text(label)
        steps: list[Step] = []
        if to not in self.files:
            to = self._check_new(to)
            steps = self._adding_steps(to)
        folder = self._folders.get(to, [self.data / to])[0].name
        steps += [Step("move", self._relative(path), f"{folder}/{path.name}") for path in paths]
        outcome = self.history.apply(f"{count_images(len(paths))} restored to {to}", steps)
        return _describe("restored", outcome, len(wanted), f"to {to}")

    def _rejected_folders(self) -> list[Path]:
        """Return the folders in data/.rejected/, one for each label."""
        try:
            return _shown(label_folders(self.data / REJECTED))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # Steps of changes

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.data).as_posix()

    def _ordering_step(self, entries: list[LabelEntry]) -> Step:
        return Step("order", self._order, entries)

    def _adding_steps(self, label: str) -> list[Step]:
        entries = [*self._order, LabelEntry(label, free_color(self._order))]
        return [Step("folder", None, label), self._ordering_step(entries)]

    def _refresh_order(self, files: dict[str, list[str]]) -> None:
        """Read the labels' order, and add those that another program has made."""
        order = read_order(self.data)
        self._order = complete_order(self.data, order, files)
        if self._order != order:
            with contextlib.suppress(OSError):  # a full disk, a folder that nobody may write to
                write_order(self.data, self._order)
        self.colors = {entry.name: entry.color for entry in self._order}

    def _check_not_recorded(self, label: str) -> None:
        self.check_exists(label)
        if label == self._recorded:
            raise DatasetError(f"{label} is being recorded: wait until that ends")

    def _check_new(self, label: str, renamed: str = "") -> str:
        label = check_label(label.strip(), [other for other in self.files if other != renamed])
        if label in self.files:
            raise DatasetError(f"there is a label {label} already: choose another name, or move images there")
        return label


def _shown(paths: list[Path]) -> list[Path]:
    """Return the paths whose names can be sent to a page: not those with bytes that are not UTF-8."""
    return [path for path in paths if path.name.isprintable()]


def _rejecting_step(path: Path) -> Step:
    label = path.parent.name
    return Step("move", f"{label}/{path.name}", f"{REJECTED}/{label}/{path.name}")


def _check_any(paths: list[Path], label: str, num_wanted: int) -> None:
    if not paths:
        raise DatasetError(f"{label[:100]} has {'no such image' if num_wanted == 1 else 'none of these images'}")


def _describe(verb: str, outcome: Outcome, num_wanted: int, where: str) -> str:
    """Return a sentence about images that were moved, as in "moved 2 images to b (1 of 3 images is gone)"."""
    outcome.missing = num_wanted - len(outcome.moved)
    return f"{verb} {count_images(len(outcome.moved))} {where}{outcome.describe()}"
