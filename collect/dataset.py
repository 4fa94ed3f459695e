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
import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from collect.cli import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
JPEG_QUALITY = 95


class DatasetError(UserError):
    """A dataset that can't be read or written as asked."""


class UnreadableImage(Exception):
    """A file that is not a whole picture; its text names the file and says why."""


@dataclass(frozen=True)
class Item:
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
    if len(label) > 100 or not re.fullmatch(r"\w([\w .+-]*[\w+-])?", label):
        raise DatasetError(f"label {label!r} can't name a folder: use letters, digits, _ and -, as in thumbs_up")
    return label


def read_items(data: Path | str) -> list[Item]:
    """List every image below the class folders of `data`, sorted by path, without opening any.

    A file's session is what its name holds before the last `_`; where there is no such name, all files of that
    folder are taken for one session. Raises DatasetError if there is no folder, or nothing in it.
    """
    data = Path(data)
    if not data.is_dir():
        raise DatasetError(f"no dataset at {data}: record one with python collect/capture.py --label NAME")
    items = [
        Item(path, folder.name, _session_of(path))
        for folder in sorted(data.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not items:
        raise DatasetError(f"no images in {data}/<label>/: record some with python collect/capture.py --label NAME")
    return items


def _session_of(path: Path) -> str:
    session, underscore, number = path.stem.rpartition("_")
    return session if underscore and session and number.isdecimal() else f"({path.parent.name})"


def read_image(path: Path | str) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3], BGR, turned upright. Raises UnreadableImage, a truncated one included."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: {error.strerror}") from None
    if not content:
        raise UnreadableImage(f"{path}: empty file")
    # Some OpenCV versions fill the missing part of a truncated file with grey and say nothing.
    if content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content[-4096:]:
        raise UnreadableImage(f"{path}: truncated JPEG")
    if content.startswith(b"\x89PNG") and b"IEND" not in content[-4096:]:
        raise UnreadableImage(f"{path}: truncated PNG")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UnreadableImage(f"{path}: not a picture that can be read")
    return image


def fingerprint(items: list[Item]) -> str:
    """Return a hash of the labels and contents of `items`: the same pictures under the same labels, the same hash."""
    lines = sorted(f"{item.label} {hashlib.sha256(item.path.read_bytes()).hexdigest()}" for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Session:
    """One press of record, being written: `save` frames, then `close`, which notes it in sessions.jsonl."""

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
        except OSError as error:
            raise DatasetError(
                f"can't write {path}: {error.strerror}{_full(error)}; all {self.count} before it are saved"
            ) from None
        if self.count == 0:
            height, width = image.shape[:2]
            self._known = {"size": [width, height], **self._known}
        self.count += 1
        return path

    def close(self) -> None:
        """Note the session in sessions.jsonl, if anything was saved."""
        if not self.count:
            return
        line = {"session": self.id, "label": self.label, "frames": self.count, **self._known}
        try:
            with (self._data / "sessions.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DatasetError(f"can't write {self._data / 'sessions.jsonl'}: {error.strerror}") from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, even if the power fails: beside it, fsync, rename."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(3)}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _full(error: OSError) -> str:
    return " (free some space, or give another --data)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
