"""Read file lists that say which images to train on and which to test on. Many public datasets come with such lists.

A line is `path class_id`, separated by a space or a tab. Paths are relative to the dataset folder or to the list.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from teachcam.collect.dataset import Sample, samples_of_label
from teachcam.collect.names import normalize_text
from teachcam.errors import DatasetError

MAX_DIGITS = 9  # of a class id


def read_lists(train: Path, test: Path | None, data: Path) -> tuple[list[Sample], list[Sample], tuple[str, ...]]:
    """Read the samples of a training list and a test list.

    A label is named after the folder that holds its files, if each label has one folder for itself. Otherwise it is
    named after its class id.

    Args:
        train: Training list.
        test: Test list, if there is one.
        data: Dataset folder.

    Returns:
        The training samples, the test samples, and the labels in the order of their class ids.

    Raises:
        DatasetError: for an unreadable list or line, a missing file, or a file with two classes or in both lists.
    """
    lists = [_read_list(path, data) for path in (train, test) if path is not None]
    class_ids = sorted({class_id for entries in lists for _, class_id in entries})
    if unknown := sorted(set(class_ids) - {class_id for _, class_id in lists[0]}):
        raise DatasetError(f"{test}: class {unknown[0]} does not occur in {train}; add training images of it")
    names = _label_names(lists, class_ids)
    train_samples, *rest = [
        [
            sample
            for class_id in class_ids
            for sample in samples_of_label(names[class_id], [path for path, other in entries if other == class_id])
        ]
        for entries in lists
    ]
    test_samples = rest[0] if rest else []
    if both := {sample.path.resolve() for sample in train_samples} & {sample.path.resolve() for sample in test_samples}:
        raise DatasetError(f"{min(both)} is in both lists: remove it from one, a test needs images not trained on")
    return train_samples, test_samples, tuple(names.values())


def _label_names(lists: list[list[tuple[Path, int]]], class_ids: list[int]) -> dict[int, str]:
    """Return a name for each class id: its folder's, if every class has one folder for itself, else its number."""
    folders = {
        class_id: {
            normalize_text(path.parent.name) for entries in lists for path, other in entries if other == class_id
        }
        for class_id in class_ids
    }
    names = [name for own in folders.values() for name in own]
    one_folder_each = len(names) == len(set(names)) == len(class_ids)
    return {class_id: min(folders[class_id]) if one_folder_each else str(class_id) for class_id in class_ids}


def _read_list(path: Path, data: Path) -> list[tuple[Path, int]]:
    """Return the files of a list with their class ids. A file that is listed twice is returned once."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    entries: dict[Path, tuple[Path, int]] = {}  # by resolved path: one file may be spelled in several ways
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, class_id = (["", *line.rsplit(None, 1)])[-2:]
        name = name.strip()
        if not class_id.isdecimal() or len(class_id) > MAX_DIGITS or not name:
            raise DatasetError(f"{path}, line {number}: {line.strip()[:60]!r} is not a path and a class id")
        spellings = (name, normalize_text(name), unicodedata.normalize("NFD", name))
        candidates = [folder / spelling for folder in (data, path.parent) for spelling in spellings]
        file = next(filter(_is_file, candidates), None)
        if file is None:
            raise DatasetError(f"{path}, line {number}: no file {name[:100]} in {data} or beside the list")
        if entries.setdefault(file.resolve(), (file, int(class_id)))[1] != int(class_id):
            raise DatasetError(f"{path}, line {number}: {name} has two class ids; keep one")
    if not entries:
        raise DatasetError(f"{path}: the list names no file")
    return list(entries.values())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # more characters than a name may have
        return False
