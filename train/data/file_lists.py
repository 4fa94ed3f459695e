"""Given lists: which files to learn from and which to test on, as many datasets come with them.

A line is `path class_id`, a space or a tab between them, the path from the dataset's folder or from the list's own.
"""

from __future__ import annotations

from pathlib import Path

from teachcam.collect.dataset import Sample, items_of
from teachcam.errors import DatasetError


def read_lists(train: Path, test: Path | None, data: Path) -> tuple[list[Sample], list[Sample], tuple[str, ...]]:
    """Return the items of both lists, and the labels in the order of their class ids.

    A label is the name of the folder that all of its files are in, where no other label's are; else its class id.
    Raises DatasetError, with the line, for what can't be read.
    """
    parts = [_read(path, data) for path in (train, test) if path is not None]
    class_ids = sorted({class_id for part in parts for _, class_id in part})
    folders = {
        class_id: {path.parent.name for part in parts for path, own in part if own == class_id}
        for class_id in class_ids
    }
    names = [folder for own in folders.values() for folder in own]
    named = len(names) == len(set(names)) == len(class_ids)
    labels = {class_id: min(folders[class_id]) if named else str(class_id) for class_id in class_ids}
    known = {class_id for _, class_id in parts[0]}
    if strange := sorted(set(class_ids) - known):
        raise DatasetError(f"{test}: nothing in {train} is of class {strange[0]}")
    sides = [
        [
            item
            for class_id in class_ids
            for item in items_of(labels[class_id], [p for p, own in part if own == class_id])
        ]
        for part in parts
    ]
    if both := {i.path.resolve() for i in sides[0]} & {i.path.resolve() for side in sides[1:] for i in side}:
        raise DatasetError(f"{min(both)} is in both lists: what is trained on is no test")
    return sides[0], sides[1] if test else [], tuple(labels.values())


def _read(path: Path, data: Path) -> list[tuple[Path, int]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    files: dict[Path, tuple[Path, int]] = {}  # by what they are, however they are spelt
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, class_id = (["", *line.rsplit(None, 1)])[-2:]
        if not class_id.isdecimal() or not name.strip():
            raise DatasetError(f"{path}, line {number}: {line.strip()[:60]!r} is not a path and a class id")
        found = next(
            (folder / name.strip() for folder in (data, path.parent) if (folder / name.strip()).is_file()), None
        )
        if found is None:
            raise DatasetError(f"{path}, line {number}: no file {name.strip()} in {data}")
        if files.setdefault(found.resolve(), (found, int(class_id)))[1] != int(class_id):
            raise DatasetError(f"{path}, line {number}: {name.strip()} is of two classes")
    if not files:
        raise DatasetError(f"{path}: no file in it")
    return list(files.values())
