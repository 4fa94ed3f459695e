"""What the names of labels say: which stand for the bare background, and which are taken for "no value"."""

from __future__ import annotations

from typing import Iterable

UNKNOWN = "unknown"  # the answer of a model that is not sure
# States of Home Assistant without a value, and the MQTT payload that stands for one; only in this spelling.
NO_VALUE = ("None", "unavailable", UNKNOWN)
BACKGROUND_LABELS = {"none", "nothing", "background", "empty"}  # usual names of the label for "none of the others"


def has_background_label(labels: Iterable[str], shows_background: bool = False) -> bool:
    """Return whether one of the labels stands for the bare background.

    If none does, every strategy of training, and teaching, learn backgrounds as outliers: images of no label.

    Args:
        labels: Names of the labels.
        shows_background: Whether the images of one were found to show nothing in front of the background.
    """
    return shows_background or bool(BACKGROUND_LABELS & {label.lower() for label in labels})


def warnings_of_labels(labels: Iterable[str]) -> list[str]:
    """Return a line for each label that is taken for "no value", which says so and what to do."""
    lines = []
    for label in labels:
        if label == UNKNOWN:
            lines.append(f"a model that is not sure answers {label}, too: choose another name for this label")
        elif label in NO_VALUE:
            lines.append(f'Home Assistant takes the label {label} for "no value": choose another name')
    return lines
