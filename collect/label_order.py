"""The order and the colors of a dataset's labels, which the user sees and may change: `data/.labels.json`.

    {"labels": [{"name": "up", "color": 0}, {"name": "down", "color": 1}]}

A label that is not in it, as of another program, comes last. A file that is missing or damaged is made again.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from teachcam.files import parse_json, write_atomic

ORDER_FILE = ".labels.json"
MAX_COLOR = 100_000  # what a damaged file may give; a page repeats its colors
SESSION_TIME = re.compile(r"\d{8}T\d{6}")  # at the beginning of a recorded session's name


@dataclass(frozen=True)
class LabelEntry:
    """A label's place is its place in the list; its color is a number that no other label has."""

    name: str
    color: int

    @classmethod
    def list_from_json(cls, content: object) -> list[LabelEntry]:
        """Return the entries of a list. Raises ValueError if it is another thing."""
        entries: list[Any] = content if isinstance(content, list) else [None]
        for entry in entries:
            if not isinstance(entry, dict) or set(entry) != {"name", "color"}:
                raise ValueError("no label")
            if not isinstance(entry["name"], str) or type(entry["color"]) is not int:
                raise ValueError("no label")
            if not 0 <= entry["color"] < MAX_COLOR:
                raise ValueError("no color")
        return [cls(**entry) for entry in entries]

    def to_json(self) -> dict[str, object]:
        """Return what `list_from_json` reads."""
        return asdict(self)


def read_order(data: Path) -> list[LabelEntry]:
    """Return the entries of the dataset's file, none if it is missing or damaged."""
    try:
        return LabelEntry.list_from_json(parse_json((data / ORDER_FILE).read_bytes())["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_order(data: Path, entries: list[LabelEntry]) -> None:
    """Write the dataset's file. Raises OSError."""
    content = {"labels": [entry.to_json() for entry in entries]}
    write_atomic(data / ORDER_FILE, json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "replace"))


def complete_order(data: Path, entries: list[LabelEntry], files: dict[str, list[str]]) -> list[LabelEntry]:
    """Return the entries of the labels that there are: first those of `entries`, then the others, the oldest first.

    Args:
        data: The dataset's folder.
        entries: As far as they are known.
        files: The names of each label's images.
    """
    complete: list[LabelEntry] = []
    known = {entry.name: entry for entry in reversed(entries) if entry.name in files}  # the first of a name counts
    names = [entry.name for entry in entries if known.get(entry.name) is entry]
    others = [name for name in files if name not in known]
    for name in names + sorted(others, key=lambda name: (_age_key(data / name, files[name]), name)):
        used = {entry.color for entry in complete}
        if name in known and known[name].color not in used:
            complete.append(known[name])
        else:
            complete.append(LabelEntry(name, free_color([*complete, *known.values()])))
    return complete


def free_color(entries: list[LabelEntry]) -> int:
    """Return the smallest number that is no entry's color."""
    used = {entry.color for entry in entries}
    return next(color for color in range(len(used) + 1) if color not in used)


def _age_key(folder: Path, files: list[str]) -> float:
    """Return when a label was made, in seconds since 1970: its first session, else the time of its folder."""
    times = [match[0] for match in map(SESSION_TIME.match, files) if match]
    try:
        if times:
            return datetime.strptime(min(times), "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc).timestamp()
        # Folders that were copied together were made in any order: within a minute, their names decide.
        return folder.stat().st_mtime // 60 * 60
    except (OSError, ValueError):  # removed meanwhile; no such day
        return 0.0
