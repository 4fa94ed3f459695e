"""Read files of JSON lines that were damaged by a power cut, an editor or a merge.

After a power cut a line may end early, or be a row of NUL bytes. Editors leave a byte order mark, UTF-16, commas
between objects, objects over several lines, or one array of all. Git leaves the marks of a conflict. Every whole object
is read. The lines with anything else are counted, so that somebody can be told.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START = re.compile("[^\\s,\ufeff]")  # what is between two objects comes before it
TRAILING_COMMA = re.compile(r",\s*\}\s*\Z")
UTF_8_LINE = re.compile(rb'\{"[ -~]')  # the beginning of an object in a file that began in UTF-16
MAX_ATTEMPTS = 50  # objects that are looked for in one damaged line


@dataclass
class JsonLines:
    """The content of a file. A file that is missing has none, and no error."""

    objects: list[dict] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the line in which each object begins, from 1
    damaged: list[int] = field(default_factory=list)  # numbers of the lines with anything that is no whole object
    error: str = ""  # why the file can't be read


def scan_json_lines(path: Path, key: str = "") -> JsonLines:
    """Read a file of JSON lines.

    Args:
        path: The file.
        key: Each object in a damaged line that has this key is read, too. Others could be a part of a larger one.
    """
    try:
        text = _to_text(path.read_bytes())
    except FileNotFoundError:
        return JsonLines()
    except OSError as error:
        return JsonLines(error=error.strerror or str(error))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    objects = [_decode(line, 0) for _, line in lines]
    if "\ufffd" not in text and all(
        type(value) is dict and not line[end:].strip() for (value, end), (_, line) in zip(objects, lines)
    ):
        return JsonLines([value for value, _ in objects], [number for number, _ in lines])
    return _scan(text, key)


def _scan(text: str, key: str) -> JsonLines:
    found = JsonLines()
    damaged: set[int] = set()
    position, number, attempts = 0, 1, 0  # attempts: after something in this line that is no object
    while True:
        match = START.search(text, position)
        start = match.start() if match else len(text)
        if line_ends := text.count("\n", position, start):
            number, attempts = number + line_ends, 0
        if start == len(text):
            break
        line_end = text.find("\n", start)
        line_end = len(text) if line_end < 0 else line_end
        value, end = _decode(text, start)
        if value is None and not attempts and (comma := TRAILING_COMMA.search(text, start, line_end)):
            value, end = _decode(text[start : comma.start()] + "}", 0)[0], line_end
        values = value if isinstance(value, list) else [value]
        whole = all(isinstance(value, dict) and (not attempts or (key and key in value)) for value in values)
        if whole and values:
            found.objects += values
            found.numbers += [number] * len(values)
            if "\ufffd" in text[start:end] or any(type(value) is _Repeated for value in values):
                damaged.add(number)
        else:
            damaged.add(number)
            attempts += 1
            if value is None:
                end = text.find("{", start + 1, line_end) if attempts < MAX_ATTEMPTS else -1
                end = line_end if end < 0 else end
        number += text.count("\n", start, end)
        position = end
    found.damaged = sorted(damaged)
    return found


class _Repeated(dict):
    """An object in which a key is there twice. The last one counts, as everywhere in JSON."""


def _to_dict(pairs: list) -> dict:
    content = dict(pairs)
    return content if len(content) == len(pairs) else _Repeated(content)


_DECODER = json.JSONDecoder(object_pairs_hook=_to_dict)


def _decode(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at a position, and where it ends; None if there is none."""
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start


def _to_text(content: bytes) -> str:
    """Decode a file. Lines in UTF-8 may have been added to one that an editor has saved in UTF-16."""
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-8-sig", "replace")
    added = UTF_8_LINE.search(content)
    old, new = (content[: added.start()], content[added.start() :]) if added else (content, b"")
    old = old[: len(old) - len(old) % 2]  # a line end in UTF-8, with which the old last line was ended
    return old.decode("utf-16", "replace") + new.decode("utf-8", "replace")
