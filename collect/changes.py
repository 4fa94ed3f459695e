"""Change a dataset's files in steps, each of which can be reversed. No step deletes or overwrites an image.

    Step("move", "up/1.jpg", "down/1.jpg")      rename an image, or a label's folder
    Step("folder", None, "palm")                make a label's folder; reversed, remove it if it is empty
    Step("order", [...], [...])                 change the order and the colors of the labels (label_order.py)

Paths are relative to the dataset's folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from teachcam.collect.dataset import REJECTED
from teachcam.collect.label_order import LabelEntry, read_order, write_order

MAX_NAME_BYTES = 255  # of Linux, macOS and Windows


@dataclass(frozen=True)
class Step:
    """One step of a change: what was before, and what is after it."""

    kind: str  # move, folder or order
    before: Any
    after: Any

    @property
    def moves_image(self) -> bool:
        """Whether it renames an image, not a folder."""
        return self.kind == "move" and "/" in self.before

    def reverse(self) -> Step:
        """Return the step that takes this one back."""
        return Step(self.kind, self.after, self.before)

    @classmethod
    def from_json(cls, content: object) -> Step:
        """Return the step that three values of a file describe.

        Raises:
            ValueError: They describe none, or it would reach outside the dataset.
        """
        if not isinstance(content, list) or len(content) != 3 or not isinstance(content[0], str):
            raise ValueError("no step")
        kind, before, after = content
        if kind == "order":
            return cls(kind, LabelEntry.list_from_json(before), LabelEntry.list_from_json(after))
        depths = {_depth(path) for path in (before, after)}
        if depths in {"move": ({1}, {2}), "folder": ({0, 1},)}.get(kind, ()):
            return cls(kind, before, after)
        raise ValueError("no step")

    def to_json(self) -> list:
        """Return what `from_json` reads."""
        if self.kind == "order":
            return [self.kind, *([entry.to_json() for entry in entries] for entries in (self.before, self.after))]
        return [self.kind, self.before, self.after]


@dataclass(frozen=True)
class Change:
    """A change to a dataset that is undone in one step.

    Attributes:
        id: Tells it from others. Of a recording, its session.
        text: Says what it was, as in "2 images moved from a to b".
        steps: What it did to the files. Those of a recording are found when it is undone.
        label: Label of a recording; "" for any other change.
        images: How many a recording had at its end.
    """

    id: str
    text: str
    steps: list[Step] = field(default_factory=list)
    label: str = ""
    images: int = 0

    @classmethod
    def from_json(cls, content: dict) -> Change:
        """Return the change that a line of the file describes. Raises ValueError, KeyError or TypeError."""
        change = cls(**{**content, "steps": [Step.from_json(step) for step in content["steps"]]})
        is_text = all(isinstance(text, str) for text in (change.id, change.text, change.label))
        if not is_text or type(change.images) is not int or (change.label and not is_visible_name(change.label)):
            raise ValueError("no change")
        return change

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {**asdict(self), "steps": [step.to_json() for step in self.steps]}


def reverse(steps: list[Step]) -> list[Step]:
    """Return the steps that take these back."""
    return [step.reverse() for step in reversed(steps)]


@dataclass
class Outcome:
    """The outcome of running steps.

    Attributes:
        moved: The images that were moved, as paths before and after.
        missing: How many images were not where they should have been: another program moved or deleted them.
        notes: What else was not done.
    """

    moved: list[tuple[str, str]] = field(default_factory=list)
    missing: int = 0
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return " (3 of 10 images are gone)", or "" if all was done."""
        total = len(self.moved) + self.missing
        gone = f"{self.missing} of {total} images {'is' if self.missing == 1 else 'are'} gone"
        gone = "the image is gone" if total == 1 else gone
        notes = ([gone] if self.missing else []) + self.notes
        return f" ({'; '.join(notes)})" if notes else ""


def count_images(number: int) -> str:
    """Return "1 image" or "2 images"."""
    return f"{number} image{'s' * (number != 1)}"


def run(data: Path, steps: list[Step]) -> Outcome:
    """Do the steps. Those that were done before an interruption are left out.

    Raises:
        OSError: A step can't be done. Those before it were reversed.
    """
    outcome, done = Outcome(), []
    try:
        for step in steps:
            if _run_step(data, step, outcome):
                done.append(step)
    except OSError:
        for step in reversed(done):
            with contextlib.suppress(OSError):
                _run_step(data, step.reverse(), Outcome())
        raise
    return outcome


def with_free_names(data: Path, steps: list[Step]) -> list[Step]:
    """Return the steps with another name for each image that would overwrite one."""
    free, taken = [], set()
    for step in steps:
        after = step.after
        if step.moves_image and (data / step.before).exists():
            while after in taken or (data / after).exists():
                after = _other_name(step.after)
            taken.add(after)
        free.append(Step(step.kind, step.before, after))
    return free


def _other_name(path: str) -> str:
    """Return another name for an image, which keeps its session: `<session>_<n>.jpg` gets a longer number."""
    image = PurePosixPath(path)
    more = f"{secrets.randbelow(1_000_000):06d}" if image.stem[-1].isdecimal() else f"-{secrets.token_hex(3)}"
    return str(image.with_name(f"{image.stem}{more}{image.suffix}"))


def _run_step(data: Path, step: Step, outcome: Outcome) -> bool:
    """Do one step. Returns whether anything has changed."""
    if step.kind == "order":
        known = {entry.name for entry in (*step.before, *step.after)}
        others = [entry for entry in read_order(data) if entry.name not in known]  # labels of another program
        write_order(data, [*step.after, *others])
        return True
    if step.kind == "move":
        return _move(data, step, outcome)
    if step.after is not None:
        is_new = not (data / step.after).is_dir()
        (data / step.after).mkdir(parents=True, exist_ok=True)
        return is_new
    try:
        (data / step.before).rmdir()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        outcome.notes.append(f"{step.before} stays: there are other files in its folder")
        return False
    return True


def _move(data: Path, step: Step, outcome: Outcome) -> bool:
    source, target = data / step.before, data / step.after
    if target.exists() and not _is_same(source, target):  # a rename would replace it
        if source.exists():
            outcome.notes.append(f"{step.before} stays: there is a {step.after} already")
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except FileNotFoundError:
        if step.moves_image:
            outcome.missing += 1
        else:
            outcome.notes.append(f"the folder {step.before} is gone")
        return False
    if step.moves_image:
        outcome.moved.append((step.before, step.after))
    return True


def _is_same(source: Path, target: Path) -> bool:
    """Return whether two paths name one file, as `up` and `Up` do on some systems: it can be renamed all the same."""
    try:
        return source.samefile(target)
    except FileNotFoundError:
        return False


def is_visible_name(name: str) -> bool:
    """Return whether a text can be the name of a file, leads nowhere else, and is not hidden."""
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < length <= MAX_NAME_BYTES and not name.startswith(".") and not set(name) & set("/\0")


def _depth(path: object) -> int | None:
    """Return 2 for the path of an image, 1 for that of a label's folder, 0 for None, and None for all else."""
    if path is None:
        return 0
    if not isinstance(path, str):
        return None
    parts = path.split("/")
    names = parts[1:] if parts[0] == REJECTED else parts
    # PurePath splits a path as this system does: on Windows also at a backslash, and after a drive.
    is_safe = PurePath(path).parts == tuple(parts) and all(map(is_visible_name, names))
    return len(names) if is_safe and (len(names) == 2 or len(parts) == 1) else None
