"""The rule for the names of labels and places.

A dataset is copied from Linux to Windows and macOS. So a new label must be a name that a folder can have on all of
them. What exists already keeps its name. A place names no folder, so it can be nearly any line of text.
"""

from __future__ import annotations

import unicodedata
from typing import Iterable

from teachcam.errors import DatasetError

SESSIONS_FILE = "sessions.jsonl"  # beside the folders of the labels
MAX_CHARACTERS = 100
MAX_BYTES = 255  # in UTF-8: the limit of Linux file systems for one name; that of Windows and macOS is not lower
SEPARATORS = "/\\"
FORBIDDEN = '<>:"|?*'  # by Windows
_PORTS = [port + digit for port in ("com", "lpt") for digit in "123456789¹²³"]
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", *_PORTS}  # no file of Windows can have these names


def normalize_text(text: str) -> str:
    """Return a label or session in Unicode's composed form (NFC). macOS splits the umlaut of `grün` in two."""
    return unicodedata.normalize("NFC", text)


def name_key(name: str) -> str:
    """Return what is equal for names that differ only in case or Unicode form: macOS and Windows take them for one."""
    return normalize_text(unicodedata.normalize("NFD", name).casefold())


def check_label(label: str, existing: Iterable[str] = ()) -> str:
    """Return a label, normalized, if it can be the name of a folder.

    Args:
        label: What the user has typed, or what a model predicts.
        existing: The labels that are there already. One of these may have a name that only Linux can hold.

    Raises:
        DatasetError: It can't name a folder, or differs from an existing label only in case or Unicode form.
    """
    label = normalize_text(label)
    existing = [normalize_text(other) for other in existing]
    is_new = label not in existing
    if fault := _fault_anywhere(label) or (is_new and fault_elsewhere(label)):
        raise DatasetError(f"label {_shorten(label)!r} can't name a folder: {fault}")
    same = [other for other in existing if name_key(other) == name_key(label)]
    if is_new and same:
        raise DatasetError(
            f"label {label!r} differs from {same[0]!r} only in case, and macOS and Windows take both for one folder: "
            f"use {same[0]!r}, or choose another name"
        )
    return label


def check_place(place: str) -> str:
    """Return the name of a place, normalized, without blanks around it. Raises DatasetError if it is not one line."""
    place = normalize_text(place.strip())
    fault = _describe_invisible(place) or _describe_length(place)
    if fault:
        raise DatasetError(f"place {_shorten(place)!r}: {fault}; give a short name, as in --place kitchen")
    return place


def fault_elsewhere(label: str) -> str:
    """Return why a folder that Linux can hold can't be copied to Windows, or is awkward to name; "" if neither."""
    if forbidden := sorted(set(label) & set(FORBIDDEN)):
        return f"Windows forbids {' '.join(forbidden)} in names: leave {'them' if len(forbidden) > 1 else 'it'} out"
    if label[-1:] in (" ", "."):
        return f"Windows drops a {'blank' if label[-1] == ' ' else 'dot'} at the end of a name: leave it out"
    if label.startswith(" "):
        return "it begins with a blank: leave it out"
    if label.startswith("-"):
        return "it begins with -, like an option of a command: leave it out"
    stem = label.split(".")[0].rstrip(" ")
    if stem.casefold() in DEVICES:
        return f"Windows keeps the name {stem} for a device: choose another one, as in {stem}_label"
    return ""


def _fault_anywhere(label: str) -> str:
    """Return why a label can't be the name of a folder of a dataset on any computer, or "" if it can."""
    if not label:
        return "it is empty: give it a name, as in thumbs_up"
    if fault := _describe_invisible(label):
        return f"{fault}: leave it out"
    if separators := [character for character in SEPARATORS if character in label]:
        return f"{' and '.join(separators)} would divide it into folders: use _ or a blank"
    if label.startswith("."):
        return "a name that begins with a dot is hidden: leave the dot out"
    if name_key(label) == SESSIONS_FILE:
        return "a file of the dataset has this name: choose another one"
    return _describe_length(label)


def _describe_invisible(text: str) -> str:
    invisible = [character for character in text if not character.isprintable()]
    return f"it contains U+{ord(invisible[0]):04X}, a character that is not shown" if invisible else ""


def _describe_length(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        return f"it has {len(text)} characters, and at most {MAX_CHARACTERS} are allowed"
    num_bytes = len(text.encode(errors="replace"))
    return f"it takes {num_bytes} bytes, and at most {MAX_BYTES} are allowed" if num_bytes > MAX_BYTES else ""


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
