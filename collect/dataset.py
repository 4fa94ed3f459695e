"""The dataset: one folder of images for each label. No file in it is ever half written.

    data/<label>/<session>_<n>.jpg      the images; the part of a name before the last `_` is the session
    data/sessions.jsonl                 one line about each session: its camera, time and place

A session is one press of the record key: the same person, place and light. Its name is in the name of each file. The
sessions of one place are a scene (scenes.py). Images of a scene look alike, so whoever splits the data must keep a
scene in one part.
"""

from __future__ import annotations

import errno
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterable

import numpy as np

from teachcam.collect.names import SESSIONS_FILE, check_label, check_place, name_key, normalize_text
from teachcam.errors import DatasetError
from teachcam.files import append_json_line, expand, read_json_lines, write_atomic
from teachcam.images import encode_jpeg, is_image

JPEG_QUALITY = 95
PLACE_REMEMBERED = 3600.0  # seconds from the last session on
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"  # of the time in it
REJECTED = ".rejected"  # the folder for unwanted images, which are moved there and never deleted
PAUSE = 300  # seconds without a new file, after which a new session is assumed
GUESSED = "("  # the first character of the names of guessed sessions; a recorded session's name begins with a digit


@dataclass(frozen=True)
class Sample:
    """A labeled image file."""

    path: Path
    label: str
    session: str
    scene: str = ""  # the place as the user has named it, else the session; find_scenes joins more

    def __post_init__(self) -> None:
        """Take the session for the scene if that is not given."""
        object.__setattr__(self, "scene", self.scene or self.session)


# Reading


def list_samples(data: Path | str) -> list[Sample]:
    """List every image of a dataset, each session in the order of time. No image is opened.

    The session of a file is in its name. Files without one are grouped into sessions by their times.

    Args:
        data: The folder with one folder for each label.

    Raises:
        DatasetError: The folder is missing, or has no images.
    """
    data = expand(data)
    if not data.is_dir():
        raise DatasetError(f"no dataset at {data}: record one with teachcam capture --label NAME")
    files: dict[str, list[Path]] = {}
    for folder in label_folders(data):
        if not folder.name.isprintable():  # for example bytes that are not UTF-8
            raise DatasetError(f"the folder {folder.name!a} in {data} can't be a label: rename it")
        files.setdefault(normalize_text(folder.name), []).extend(image_files(folder))
    samples = [sample for label, paths in sorted(files.items()) for sample in samples_of_label(label, paths)]
    places = read_places(data)
    samples = [replace(sample, scene=places.get(sample.session, "")) for sample in samples]
    if not samples:
        nested = next((path for folder in label_folders(data) for path in folder.glob("*/*") if is_image(path)), None)
        if nested is not None:  # as others divide their datasets: train/<label>/, val/<label>/
            raise DatasetError(
                f"the labels are one folder deeper, as {nested.parent}: give --data {nested.parent.parent}"
            )
        raise DatasetError(f"no images in {data}/<label>/: record some with teachcam capture --label NAME")
    return samples


def label_folders(data: Path) -> list[Path]:
    """Return the folders of a dataset that are named after labels: all but hidden ones."""
    return [folder for folder in sorted(data.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a label. Another program may remove some meanwhile, or all. Raises DatasetError."""
    try:
        return [path for path in folder.iterdir() if is_image(path)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatasetError(f"can't read {folder}: {error.strerror}") from None


def samples_of_label(label: str, files: list[Path]) -> list[Sample]:
    """Return a sample for each file of a label, with its session, each session in the order of time."""
    files = sorted(files, key=_session_and_number)
    guessed = _sessions_by_time(label, [path for path in files if _session_in_name(path) is None])
    return [Sample(path, label, _session_in_name(path) or guessed[path]) for path in files]


def describe_guessed_sessions(samples: list[Sample]) -> str:
    """Return one line about the sessions that were guessed from the times of files, or "" if there are none."""
    guessed = [sample for sample in samples if sample.session.startswith(GUESSED)]
    if not guessed:
        return ""
    labels = sorted({sample.label for sample in guessed})
    num_sessions = len({sample.session for sample in guessed})
    return (
        f"the names of {len(guessed)} files of {', '.join(labels)} contain no session: "
        f"{num_sessions} session{'s' * (num_sessions > 1)} guessed from their times "
        f"(a pause of {PAUSE // 60} minutes begins a new one)"
    )


def _session_in_name(path: Path) -> str | None:
    session, underscore, number = normalize_text(path.stem).rpartition("_")
    return session if underscore and session and number.isdecimal() else None


def _session_and_number(path: Path) -> tuple[str, int, str]:
    """Sort key: by session, then by the value of the number, however many digits it has."""
    session = _session_in_name(path)
    return (path.stem, 0, "") if session is None else (session, int(path.stem.rpartition("_")[2]), path.name)


def _sessions_by_time(label: str, files: list[Path]) -> dict[Path, str]:
    """Group files of one label into sessions: each pause of `PAUSE` seconds begins a new one."""
    sessions, number, previous = {}, 0, float("-inf")
    for modified, path in sorted((_time_of(path), path) for path in files):
        number += modified - previous > PAUSE
        previous = modified
        sessions[path] = f"{GUESSED}{label} {number})"
    return sessions


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another program has removed it
        return 0.0


# Reading sessions.jsonl


def read_places(data: Path | str) -> dict[str, str]:
    """Return the place of each session, as the user has named it. The last line about a session counts.

    Names that differ only in case or Unicode form are one place, in the spelling of its first session.
    """
    places: dict[str, str] = {}
    for line in _read_lines(data):
        place = line.get("place")
        if isinstance(place, (str, int, float)) and not isinstance(place, bool):  # a number, typed by hand
            places[normalize_text(str(line.get("session")))] = normalize_text(str(place).strip())
    spelling: dict[str, str] = {}
    return {session: spelling.setdefault(name_key(place), place) for session, place in places.items() if place}


def last_place(data: Path | str) -> str:
    """Return the place of the session that was recorded last, or "" if it has none or is too old."""
    recorded = [line for line in _read_lines(data) if isinstance(line.get("time"), str)]
    try:
        recorded_at = datetime.strptime(recorded[-1]["time"], TIME_FORMAT).timestamp()
    except (IndexError, ValueError):
        return ""
    place = recorded[-1].get("place", "")
    is_recent = abs(time.time() - recorded_at) <= PLACE_REMEMBERED  # the clock may have been set back since
    if not (isinstance(place, str) and is_recent):
        return ""
    return {name_key(known): known for known in read_places(data).values()}.get(name_key(place), place)


def _read_lines(data: Path | str) -> list[dict]:
    return read_json_lines(expand(data) / SESSIONS_FILE, "session")


# Writing


def existing_labels(data: Path | str) -> list[str]:
    """Return the labels whose folders are there, normalized. A label may have no image yet."""
    data = expand(data)
    return [normalize_text(folder.name) for folder in label_folders(data)] if data.is_dir() else []


def check_labels(data: Path | str, labels: Iterable[str]) -> list[str]:
    """Return labels to record into a dataset, normalized, each once.

    Raises:
        DatasetError: One can't name a folder, or differs from another one or from a label of the dataset only in case.
    """
    existing = existing_labels(data)
    checked: list[str] = []
    for label in labels:
        label = check_label(label, [*existing, *checked])
        if label not in checked:
            checked.append(label)
    return checked


def new_session_id() -> str:
    """Return a name for a new session: the UTC time in milliseconds, and a random part to tell machines apart."""
    now = datetime.now(timezone.utc)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"


class Session:
    """A session that is being recorded. Its first image also adds its line to sessions.jsonl.

    Attributes:
        label: Label of all its images.
        id: Its name, the first part of the name of each file.
        num_images: How many were saved.
    """

    def __init__(self, data: Path | str, label: str, **metadata: object):
        """Begin a session. Nothing is written before the first image.

        Args:
            data: The folder of the dataset.
            label: A new label's folder is created.
            metadata: More for the line in sessions.jsonl, for example the camera, the place and a note.
        """
        self.label = check_label(label, existing_labels(data))
        self.id = new_session_id()
        self.num_images = 0
        self._data = expand(data)
        self._metadata = metadata

    def save(self, image: np.ndarray) -> Path:
        """Write an image, uint8 [H, W, 3] BGR, atomically, and return its path.

        Raises:
            DatasetError: It can't be written, as on a full disk.
            UserError: It is no such image, or too large for a JPEG.
        """
        path = self._data / self.label / f"{self.id}_{self.num_images:04d}.jpg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, encode_jpeg(image, JPEG_QUALITY))
            self.num_images += 1
            if self.num_images == 1:
                size = {"width": image.shape[1], "height": image.shape[0]}
                append_line(self._data, {"session": self.id, "label": self.label, **size, **self._metadata})
        except OSError as error:
            saved = "1 frame was" if self.num_images == 1 else f"{self.num_images} frames were"
            raise DatasetError(
                f"can't write {error.filename or path}: {error.strerror}{_remedy(error)}; {saved} saved before"
            ) from None
        return path


def append_line(data: Path, line: dict) -> None:
    """Append one line of JSON to the dataset's sessions.jsonl."""
    append_json_line(data / SESSIONS_FILE, line)


def set_place(data: Path | str, sessions: list[str], place: str) -> None:
    """Name the place of sessions in sessions.jsonl; "" removes the name. Raises DatasetError."""
    place = check_place(place)
    try:
        for session in sessions:
            append_line(expand(data), {"session": session, "place": place})
    except OSError as error:
        raise DatasetError(f"can't write {error.filename}: {error.strerror}") from None


def move_to_rejected(data: Path, path: Path) -> Path:
    """Move an image out of the dataset, to `data/.rejected/<label>/`, and return its new path.

    An image of the same name that is there already is renamed.
    """
    target = data / REJECTED / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(target.with_name(f"{target.stem}-{secrets.token_hex(3)}{target.suffix}"))
    return path.replace(target)


def _remedy(error: OSError) -> str:
    return " (free some space, or choose another --data)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
