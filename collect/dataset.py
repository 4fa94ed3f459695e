"""The dataset: plain class folders that never hold half a picture.

    data/<label>/<session>_<n>.jpg      the frames; what stands before the last `_` is the session
    data/sessions.jsonl                 what is known of each session, a line each

A session is one press of record: the same person, place and light. Its frames look alike, so whoever splits
the data must keep a session whole; that is why its name is in every file's name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from teachcam.errors import DatasetError
from teachcam.files import write_atomic
from teachcam.images import is_image

JPEG_QUALITY = 95
GUESSED = "("  # what the name of a guessed session begins with: no file's own can
PAUSE = 300  # seconds
REJECTED = ".rejected"  # where frames go that are not wanted: nothing is ever deleted


@dataclass(frozen=True)
class Sample:
    """One labeled frame on disk."""

    path: Path
    label: str
    session: str


def new_session_id() -> str:
    """Return a name for a new session: UTC to the millisecond, and randomness so that two machines never collide."""
    now = datetime.now(timezone.utc)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"


def check_label(label: str) -> str:
    """Return `label` if it can name a class folder, else raise DatasetError."""
    # What no system allows, Windows neither, and what hides a folder or looks like an option.
    if len(label) > 100 or not label.isprintable() or not re.fullmatch(r'(?![\s.-])[^/\\:*?"<>|]+(?<![\s.])', label):
        raise DatasetError(f"label {label!r} can't name a folder: use letters, digits, _ and -, as in thumbs_up")
    return label


def read_items(data: Path | str) -> list[Sample]:
    """List every image below the class folders of `data`, each session's in time order, without opening any.

    A file's session is what its name holds before the last `_`; files without such a name are put into sessions by
    their times (see `guessed_sessions`). Raises DatasetError if there is no folder, or nothing in it.
    """
    data = Path(data)
    if not data.is_dir():
        raise DatasetError(f"no dataset at {data}: record one with python collect/capture.py --label NAME")
    items = []
    for folder in sorted(data.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            if not folder.name.isprintable():  # bytes that are no text, too
                raise DatasetError(f"the folder {folder.name!a} in {data} can't name a label: rename it")
            items += items_of(folder.name, [path for path in folder.iterdir() if is_image(path)])
    if not items:
        raise DatasetError(f"no images in {data}/<label>/: record some with python collect/capture.py --label NAME")
    return items


def items_of(label: str, files: list[Path]) -> list[Sample]:
    """Return one label's files with their sessions, each session's in time order."""
    files = sorted(files, key=_in_time)
    guessed = _sessions_by_time(label, [path for path in files if _session_in_name(path) is None])
    return [Sample(path, label, guessed.get(path) or _session_in_name(path)) for path in files]


def guessed_sessions(items: list[Sample]) -> str:
    """Say in one line which sessions were guessed, or '' if all are in the files' names."""
    guessed = Counter(item.label for item in items if item.session.startswith(GUESSED))
    if not guessed:
        return ""
    sessions = {item.session for item in items if item.session.startswith(GUESSED)}
    return (
        f"no session in the names of {sum(guessed.values())} files of "
        f"{', '.join(sorted(guessed))}: {len(sessions)} session{'s' * (len(sessions) > 1)} guessed from their times "
        f"(a pause of {PAUSE // 60} minutes begins a new one)"
    )


def _session_in_name(path: Path) -> str | None:
    session, underscore, number = path.stem.rpartition("_")
    return session if underscore and session and number.isdecimal() else None


def _in_time(path: Path) -> tuple[str, int, str]:
    """Sort key: a session's frames by their number, however many digits it has."""
    session = _session_in_name(path)
    return (path.stem, 0, "") if session is None else (session, int(path.stem[len(session) + 1 :]), path.name)


def _sessions_by_time(label: str, files: list[Path]) -> dict[Path, str]:
    """Put files of one label into sessions: wherever nothing was written for `PAUSE` seconds a new one begins."""
    sessions, number, before = {}, 0, float("-inf")
    for time, path in sorted((path.stat().st_mtime, path) for path in files):
        number += time - before > PAUSE
        before = time
        sessions[path] = f"{GUESSED}{label} {number})"
    return sessions


def fingerprint(items: list[Sample]) -> str:
    """Return a hash of the labels and contents of `items`: the same pictures under the same labels, the same hash."""
    lines = sorted(f"{item.label} {hashlib.sha256(item.path.read_bytes()).hexdigest()}" for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Session:
    """One press of record, being written: `save` its frames. The first one also notes it in sessions.jsonl."""

    def __init__(self, data: Path | str, label: str, **known: object):
        """Start a session of `label`; `known` (camera, note, ...) goes into its line of sessions.jsonl."""
        self.label = check_label(label)
        self.id = new_session_id()
        self.count = 0
        self._data = Path(data)
        self._known = known

    def save(self, image: np.ndarray) -> Path:
        """Write one frame, uint8 [H, W, 3] BGR, whole or not at all, and return its path."""
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        path = self._data / self.label / f"{self.id}_{self.count:04d}.jpg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content.tobytes())
            self.count += 1
            if self.count == 1:
                size = {"width": image.shape[1], "height": image.shape[0]}
                append_line(self._data, {"session": self.id, "label": self.label, **size, **self._known})
        except OSError as error:
            raise DatasetError(
                f"can't write {error.filename or path}: {error.strerror}{_full(error)}; the {self.count} frames before "
                "it are saved"
            ) from None
        return path


def append_line(data: Path, line: dict) -> None:
    """Add one line to `data`'s sessions.jsonl."""
    with (data / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def move_to_rejected(data: Path, path: Path) -> Path:
    """Move a frame out of the dataset, to `data/.rejected/<label>/`, and return where it is now."""
    target = data / REJECTED / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.replace(target)


def _full(error: OSError) -> str:
    return " (free some space, or give another --data)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
