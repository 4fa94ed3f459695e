"""Find what a dataset's folders hold that is not used, and labels that are easily taken for each other."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path

from teachcam.collect.dataset import existing_labels, label_folders
from teachcam.collect.names import fault_elsewhere, normalize_text
from teachcam.files import expand
from teachcam.images import describe_other_files, is_image, visible_files


def describe_left_out(data: Path | str, labels: tuple[str, ...] = ()) -> list[str]:
    """Return a line for each label with files that are not used, and for each label without images.

    Args:
        data: The folder of the dataset.
        labels: Only these; by default all.
    """
    data, lines = expand(data), []
    loose = sum(map(is_image, data.iterdir()))
    if loose:
        lines.append(f"left out: {loose} images in {data} itself (move them into the folders of their labels)")
    for folder in label_folders(data):
        label = normalize_text(folder.name)
        if labels and label not in labels:
            continue
        files = visible_files(folder)
        num_images = sum(is_image(file) for file in files if file.parent == folder)
        num_nested = sum(map(is_image, files)) - num_images
        others = [describe_other_files(files)]
        others += [f"{num_nested} images in its subfolders (move them into {folder})"] if num_nested else []
        left_out = ", ".join(filter(None, others))
        if not num_images:
            lines.append(f"{label} has no image that can be read, so it is no label" + (left_out and f": {left_out}"))
        elif left_out:
            lines.append(f"left out of {label}: {left_out}")
    return lines


def describe_similar_labels(data: Path | str) -> list[str]:
    """Return a line for labels whose names differ only in case, in blanks, or in the Unicode form of a letter."""
    by_key = defaultdict(list)
    for folder in label_folders(expand(data)):
        key = " ".join(unicodedata.normalize("NFKC", folder.name).casefold().split())
        by_key[key].append(folder.name)
    lines = []
    for names in by_key.values():
        labels = sorted(set(map(normalize_text, names)))
        if len(labels) > 1:
            lines.append(
                f"labels {', '.join(map(repr, labels))} look alike: rename a folder, unless they are two labels"
            )
        elif len(names) > 1:
            lines.append(
                f"{len(names)} folders are called {labels[0]}, in different forms of Unicode: they are one label"
            )
    return lines


def describe_unportable_labels(data: Path | str) -> list[str]:
    """Return a line for each label whose folder can't be copied to Windows, or is awkward to name."""
    faults = {label: fault_elsewhere(label) for label in dict.fromkeys(existing_labels(data))}
    return [f"label {label!r} should have another name: {fault}" for label, fault in faults.items() if fault]
