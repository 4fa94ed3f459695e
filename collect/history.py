"""The changes of a dataset, to undo and redo the last ones: `data/.history.jsonl`.

history = History(data)
history.apply("2 images moved from a to b", [Step("move", "a/1.jpg", "b/1.jpg"), ...])
history.undo()               # "undone: 2 images moved from a to b"
history.redo()

A line is written before anything is moved, and one after that:

    {"do": {change}}             a change begins; that of a recording is written when it ends
    {"undo": ID, "steps": ...}   it is taken back; the steps are given if they have changed
    {"redo": ID, "steps": ...}
    {"done": ID}                 all files are where they should be
    {"failed": ID}               all files are where they were before
    {"begin": {change}}          a recording begins

So whoever opens the dataset after a crash finishes what was begun. Several programs may use it, one after another.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

from teachcam.collect.changes import Change, Outcome, Step, count_images, reverse, run, with_free_names
from teachcam.collect.dataset import REJECTED, append_line
from teachcam.errors import DatasetError
from teachcam.files import append_json_line, lock_file, parse_json, write_atomic

HISTORY_FILE = ".history.jsonl"
LOCK_FILE = ".history.lock"
MAX_CHANGES = 200  # that can be undone

logger = logging.getLogger(__name__)


class History:
    """Does changes to a dataset, and takes the last ones back. One thread may use it at a time.

    Methods raise DatasetError if a change can't be done; the files are then as they were.
    """

    def __init__(self, data: Path):
        """Read the dataset's file, finish what was interrupted, and leave out the oldest changes.

        Args:
            data: The dataset's folder, which exists.
        """
        self._data, self._path = data, data / HISTORY_FILE
        self._recording: Change | None = None
        self._read_signature: tuple[int, int, int] | None = None  # None: the file has to be read
        self._clear()
        try:
            with self._locked():
                for recording in list(self._recordings.values()):
                    self._end(recording)
                self._compact()
        except DatasetError as error:  # as in a folder that nobody may write to: its images can be looked at
            logger.warning("nothing can be undone: %s", error)

    @property
    def undo_text(self) -> str:
        """The change that `undo` would take back, or ""."""
        return self._changes[self._num_applied - 1].text if self._num_applied else ""

    @property
    def redo_text(self) -> str:
        """The change that `redo` would do again, or ""."""
        return self._changes[self._num_applied].text if self._num_applied < len(self._changes) else ""

    def apply(self, text: str, steps: list[Step]) -> Outcome:
        """Do a change.

        Args:
            text: Says what it is, as in "2 images moved from a to b".
            steps: To do. An image whose new name is taken gets another one.
        """
        with self._locked():
            change = Change(secrets.token_hex(6), text, with_free_names(self._data, steps))
            return self._perform({"do": change.to_json()})

    def begin_recording(self, session: str, label: str) -> None:
        """Note a recording, so that it can be undone even if the program does not reach its end."""
        with self._locked():
            recording = Change(session, "", label=label)
            self._write({"begin": recording.to_json()})
            self._recording = recording

    def end_recording(self) -> None:
        """Make the recording that has ended the last change, unless it has no image."""
        if self._recording is not None:
            with self._locked():
                self._end(self._recording)
                self._recording = None

    def undo(self) -> str:
        """Take the last change back. Returns a sentence about it, or "" if there is none."""
        with self._locked():
            if not self._num_applied:
                return ""
            change = self._changes[self._num_applied - 1]
            steps = with_free_names(self._data, reverse(self._steps_of(change)))
            outcome = self._perform({"undo": change.id, **_new_steps(change, reverse(steps))})
            return f"undone: {change.text}{outcome.describe()}"

    def redo(self) -> str:
        """Do again the change that was undone last. Returns a sentence about it, or "" if there is none."""
        with self._locked():
            if self._num_applied == len(self._changes):
                return ""
            change = self._changes[self._num_applied]
            steps = with_free_names(self._data, change.steps)
            outcome = self._perform({"redo": change.id, **_new_steps(change, steps)})
            return f"redone: {change.text}{outcome.describe()}"

    # Recordings

    def _files_of(self, recording: Change) -> list[str]:
        """Return the names of a recording's images that are in the folder of its label."""
        try:
            names = sorted(path.name for path in (self._data / recording.label).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if name.startswith(f"{recording.id}_") and name.endswith(".jpg")]

    def _steps_of(self, change: Change) -> list[Step]:
        if not change.label:
            return change.steps
        paths = [f"{change.label}/{name}" for name in self._files_of(change)]
        return [Step("move", f"{REJECTED}/{path}", path) for path in paths]

    def _end(self, recording: Change) -> None:
        images = len(self._files_of(recording))
        if images:
            text = f"the recording of {count_images(images)} of {recording.label}"
            self._write_if_possible({"do": replace(recording, text=text, images=images).to_json()})

    # The file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other programs out. First read what they have done, and finish what was interrupted."""
        try:
            with lock_file(self._data / LOCK_FILE):
                if self._signature() != self._read_signature:
                    self._read()
                with contextlib.suppress(OSError):
                    self._finish()
                yield
                self._read_signature = self._signature()
        except OSError as error:
            self._read_signature = None
            raise DatasetError(f"can't change {error.filename or self._data}: {error.strerror}") from None
        except BaseException:  # what was read is not to be relied on
            self._read_signature = None
            raise

    def _signature(self) -> tuple[int, int, int] | None:
        """Return what differs after another program has written the file."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _clear(self) -> None:
        self._changes: list[Change] = []  # the oldest first
        self._num_applied = 0  # the others were undone
        self._recordings: dict[str, Change] = {}  # without an end
        self._pending: tuple[str, Change] | None = None  # do, undo or redo, whose end is not in the file
        self._before: tuple[list[Change], int] = [], 0  # the changes before the pending one

    def _read(self) -> None:
        self._clear()
        num_damaged = 0
        for line in self._path.read_bytes().split(b"\n") if self._path.exists() else []:
            try:
                if line.strip():
                    self._replay(parse_json(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                num_damaged += 1
        if num_damaged:
            logger.warning(
                "%s: damaged lines are left out (%d): what they say can't be undone", self._path, num_damaged
            )

    def _replay(self, line: dict) -> None:
        """Follow one line of the file. Raises ValueError, KeyError, TypeError or AttributeError for a damaged one."""
        if "begin" in line:
            change = Change.from_json(line["begin"])
            self._recordings[change.id] = change
        elif "do" in line:
            change = Change.from_json(line["do"])
            self._recordings.pop(change.id, None)
            self._before = self._changes, self._num_applied
            applied = [one for one in self._changes[: self._num_applied] if one.id != change.id]
            self._changes = [*applied, change][-MAX_CHANGES:]
            self._num_applied = len(self._changes)
            self._pending = None if change.label else ("do", change)
        elif "undo" in line or "redo" in line:
            kind = "undo" if "undo" in line else "redo"
            index = self._num_applied - (kind == "undo")
            if index < 0 or self._changes[index : index + 1] == [] or self._changes[index].id != line[kind]:
                raise ValueError("no change of that name was the last one")
            change = self._changes[index]
            if "steps" in line:
                change = replace(change, steps=[Step.from_json(step) for step in line["steps"]])
            self._before = self._changes, self._num_applied
            self._changes = [*self._changes[:index], change, *self._changes[index + 1 :]]
            self._num_applied += 1 if kind == "redo" else -1
            self._pending = kind, change
        else:
            end = line["done"] if "done" in line else line["failed"]
            if not isinstance(end, str):
                raise ValueError("no change")
            if self._pending is not None and self._pending[1].id == end:
                self._pending = None
                if "failed" in line:
                    self._changes, self._num_applied = self._before

    def _write(self, line: dict[str, Any]) -> None:
        """Add a line to the file, and follow it. Raises OSError if it can't be written; nothing has changed then."""
        append_json_line(self._path, line, sync=True)
        self._replay(line)

    def _write_if_possible(self, line: dict[str, Any]) -> None:
        """Do the same with a line that may be missing: whoever opens the dataset does once more what it would end."""
        with contextlib.suppress(OSError):
            append_json_line(self._path, line)
        self._replay(line)

    def _perform(self, line: dict[str, Any]) -> Outcome:
        self._write(line)
        return self._finish()

    def _finish(self) -> Outcome:
        """Do the steps of the pending line, if any. Raises OSError if one can't be done; nothing has changed then."""
        if self._pending is None:
            return Outcome()
        kind, change = self._pending
        try:
            outcome = run(self._data, reverse(change.steps) if kind == "undo" else change.steps)
        except OSError:
            self._write_if_possible({"failed": change.id})
            raise
        if change.label:
            outcome.missing = max(outcome.missing, change.images - len(outcome.moved))
        with contextlib.suppress(OSError):  # for people to read: the images are where they should be
            self._describe(kind, change, outcome)
        self._write_if_possible({"done": change.id})
        return outcome

    def _describe(self, kind: str, change: Change, outcome: Outcome) -> None:
        """Add lines to sessions.jsonl."""
        if change.label and kind == "undo":
            undone = len(outcome.moved)
            append_line(self._data, {"session": change.id, "label": change.label, "undone": undone})
        for before, after in outcome.moved:
            (label, _), (to, name) = before.rsplit("/", 1), after.rsplit("/", 1)
            if REJECTED not in (before.split("/")[0], after.split("/")[0]):
                append_line(self._data, {"moved": name, "from": label, "to": to})

    def _compact(self) -> None:
        """Write the file anew if it has more than the changes that can be undone or redone."""
        lines: list[dict[str, Any]] = []
        for change in self._changes:
            lines += [{"do": change.to_json()}] + ([] if change.label else [{"done": change.id}])
        for change in reversed(self._changes[self._num_applied :]):
            lines += [{"undo": change.id}, {"done": change.id}]
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")
        if self._path.exists() and self._path.read_bytes() != content:
            write_atomic(self._path, content)


def _new_steps(change: Change, steps: list[Step]) -> dict[str, Any]:
    """Return what a line says about steps: nothing if they are those of the change."""
    return {} if steps == change.steps else {"steps": [step.to_json() for step in steps]}
