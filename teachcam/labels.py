"""Find labels that other programs, or this one, take for "no value"."""

from __future__ import annotations

from typing import Iterable

UNKNOWN = "unknown"  # the answer of a model that is not sure
# States of Home Assistant without a value, and the MQTT payload that stands for one; only in this spelling.
NO_VALUE = ("None", "unavailable", UNKNOWN)


def warnings_of_labels(labels: Iterable[str]) -> list[str]:
    """Return a line for each label that is taken for "no value", which says so and what to do."""
    lines = []
    for label in labels:
        if label == UNKNOWN:
            lines.append(f"a model that is not sure answers {label}, too: choose another name for this label")
        elif label in NO_VALUE:
            lines.append(f'Home Assistant takes the label {label} for "no value": choose another name')
    return lines
