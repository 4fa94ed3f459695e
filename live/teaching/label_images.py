"""Add, rename and remove the labels of a dataset, and move their images. No image is deleted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from teachcam.collect.dataset import (
    append_line,
    check_label,
    image_files,
    label_folders,
    list_samples,
    move_to_rejected,
    normalize_text,
)
from teachcam.errors import DatasetError


class LabelImages:
    """Knows the files of each label. One thread may use it at a time.

    Attributes:
        data: The dataset's folder.
        files: The file names of each label's images, sorted: recorded ones by time.
        sessions: The number of sessions of each label.
        places: The places that were named.
    """

    def __init__(self, data: Path):
        """Make the folder if it is missing, and list its files."""
        self.data = data
        self.files: dict[str, list[str]] = {}
        # Of each label. There are two if its name is there in two forms of Unicode, as after copying from macOS.
        self._folders: dict[str, list[Path]] = {}
        self.sessions: Counter[str] = Counter()
        self.places: set[str] = set()
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"can't make {data}: {error.strerror}") from None
        self.refresh()

    def refresh(self) -> bool:
        """List the files again. Returns whether they have changed."""
        before = self.files
        folders: dict[str, list[Path]] = {}
        for folder in label_folders(self.data):
            folders.setdefault(normalize_text(folder.name), []).append(folder)
        self._folders = folders
        self.files = {
            label: sorted({path.name for folder in own for path in image_files(folder)})
            for label, own in folders.items()
        }
        try:
            samples = list_samples(self.data)
        except DatasetError:  # no image yet
            samples = []
        self.sessions = Counter(label for label, _ in {(sample.label, sample.session) for sample in samples})
        self.places = {sample.scene for sample in samples if sample.scene != sample.session}
        return self.files != before

    def note(self, path: Path) -> None:
        """Take note of a file that was just recorded."""
        self.files.setdefault(path.parent.name, []).append(path.name)

    def check_exists(self, label: str) -> None:
        """Raise DatasetError if there is no such label."""
        if label not in self.files:
            raise DatasetError(f"there is no label {label[:100]}")

    def add(self, label: str) -> None:
        """Add a label without images. Raises DatasetError."""
        label = self._check_new(label)
        try:
            (self.data / label).mkdir()
        except OSError as error:
            raise DatasetError(f"can't make {self.data / label}: {error.strerror}") from None

    def rename(self, label: str, name: str) -> None:
        """Give a label another name. Raises DatasetError."""
        self.check_exists(label)
        target = self.data / self._check_new(name, label)
        first, *others = self._folders.get(label, [self.data / label])
        first.rename(target)
        for path in (path for folder in others for path in image_files(folder) if not (target / path.name).exists()):
            path.rename(target / path.name)

    def remove(self, label: str) -> int:
        """Move all images of a label to data/.rejected/. Returns their number. Raises DatasetError."""
        self.check_exists(label)
        for name in self.files[label]:
            move_to_rejected(self.data, self.path(label, name))
        for folder in self._folders.get(label, []):
            if not any(folder.iterdir()):
                folder.rmdir()
        return len(self.files[label])

    def path(self, label: str, name: str) -> Path:
        """Return the path of an image. Raises DatasetError if there is none of that name."""
        self.check_exists(label)
        if name not in self.files[label]:
            raise DatasetError(f"{label} has no image {name}")
        paths = [folder / name for folder in self._folders.get(label, [])]
        return next((path for path in paths if path.exists()), self.data / label / name)

    def move(self, label: str, name: str, to: str | None) -> None:
        """Move an image to another label, or take it out of the dataset if `to` is None. Raises DatasetError."""
        path = self.path(label, name)
        if to is None:
            move_to_rejected(self.data, path)
            return
        self.check_exists(to)
        if name in self.files[to]:
            raise DatasetError(f"{to} has an image {name} already")
        path.rename(self._folders.get(to, [self.data / to])[0] / name)
        append_line(self.data, {"moved": name, "from": label, "to": to})

    def _check_new(self, label: str, renamed: str = "") -> str:
        label = check_label(label.strip(), [other for other in self.files if other != renamed])
        if label in self.files:
            raise DatasetError(f"there is a label {label} already: choose another name, or move images there")
        return label
