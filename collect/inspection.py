"""The health of a dataset: what is in it, what is wrong with it, and what to record next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import numpy as np

from teachcam.collect.dataset import Sample, guessed_sessions
from teachcam.collect.quality import BLURRED, SIGNATURE, Background, exposure_fault, gray, sharpness, signature
from teachcam.errors import UnreadableImage
from teachcam.images import read_image
from teachcam.preprocessing import resize

# Largest difference anywhere in two signatures, in gray levels. On recordings of 16 rooms the nearest two frames under
# different labels are 37 apart; nineteen of twenty pictures saved again as JPEG of quality 70 are within 7.
SAME_PICTURE, NEAR_DUPLICATE = 8, 6
ENOUGH_FRAMES, ENOUGH_SESSIONS = 20, 3  # of a label
IMBALANCE = 3  # times as many frames of one label as of another


@dataclass
class Row:
    """What is known of one label."""

    frames: int = 0
    sessions: int = 0
    backgrounds: int = 0  # that can be told apart
    blurred: int = 0
    dark: int = 0
    bright: int = 0
    near_duplicates: int = 0
    unreadable: int = 0


@dataclass
class Finding:
    """One thing that is wrong: an error if training on it would be wrong, else a warning."""

    kind: str
    text: str  # one line, in plain words
    items: list[Sample] = field(default_factory=list)
    error: bool = False


@dataclass
class Health:
    """All that was found."""

    rows: dict[str, Row]
    findings: list[Finding]
    advice: list[str]  # what to do next, the most useful first

    @property
    def errors(self) -> list[Finding]:
        """The findings that should stop training."""
        return [finding for finding in self.findings if finding.error]


def examine(items: list[Sample]) -> Health:
    """Read every picture of a dataset once and say how healthy it is."""
    rows = {label: Row() for label in sorted({item.label for item in items})}
    readable, signatures, sharp, unreadable, faulty = [], [], [], [], {"too dark": [], "too bright": []}
    for item in items:
        try:
            image = read_image(item.path)
        except UnreadableImage:
            unreadable.append(item)
            continue
        small = gray(image)
        readable.append(item)
        signatures.append(signature(image))
        sharp.append(sharpness(small))
        if fault := exposure_fault(small):
            faulty[fault].append(item)
    signatures = np.array(signatures, np.float32).reshape(len(readable), SIGNATURE[0] * SIGNATURE[1] * 3)
    same, near = _duplicates(readable, signatures)
    blurred = _blurred(readable, np.array(sharp))
    backgrounds = _backgrounds(readable, signatures)

    for item in readable:
        rows[item.label].frames += 1
    for name, found in (
        ("unreadable", unreadable),
        ("blurred", blurred),
        ("near_duplicates", near),
        ("dark", faulty["too dark"]),
        ("bright", faulty["too bright"]),
    ):
        for item in found:
            setattr(rows[item.label], name, getattr(rows[item.label], name) + 1)
    for label, row in rows.items():
        own = {item.session for item in readable if item.label == label}
        row.sessions, row.backgrounds = len(own), len({backgrounds[session] for session in own})

    findings = [
        Finding("same picture", f"{len(same)} pictures are under two labels at once", same, error=True),
        Finding("unreadable", f"{len(unreadable)} files can't be read; training skips them", unreadable),
        Finding("near-duplicate", f"{len(near)} frames are the same as one before them and teach nothing", near),
        Finding("blurred", f"{len(blurred)} frames are blurred, against the others of their session", blurred),
        *(Finding(fault, f"{len(found)} frames are {fault}", found) for fault, found in faulty.items()),
    ]
    findings = [finding for finding in findings if finding.items]
    if sum(row.frames > 0 for row in rows.values()) < 2:
        findings.insert(0, Finding("one label", "there is only one label to learn", error=True))
    if guess := guessed_sessions(items):
        findings.append(Finding("guessed sessions", guess))
    return Health(rows, findings, list(_advice(rows, readable, set(backgrounds.values()))))


def _duplicates(items: list[Sample], signatures: np.ndarray) -> tuple[list[Sample], list[Sample]]:
    """Return the items whose picture is under another label too, and those that repeat an earlier one of their own."""
    # A coarse signature can't differ by more than the fine one does: it rules most pairs out at a sixteenth the work.
    coarse = signatures.reshape(len(items), 6, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(items), 6 * 8 * 3)
    labels = np.array([item.label for item in items])
    same, near = set(), set()
    for index in range(1, len(items)):
        candidates = np.flatnonzero(np.abs(coarse[:index] - coarse[index]).max(axis=1) <= SAME_PICTURE)
        largest = np.abs(signatures[candidates] - signatures[index]).max(axis=1)
        own = labels[candidates] == labels[index]
        if not near.issuperset(candidates[own & (largest <= NEAR_DUPLICATE)].tolist()):  # one that is kept is like it
            near.add(index)
        for other in candidates[~own & (largest <= SAME_PICTURE)]:
            same |= {index, int(other)}
    return [items[index] for index in sorted(same)], [items[index] for index in sorted(near - same)]


def _blurred(items: list[Sample], sharp: np.ndarray) -> list[Sample]:
    """Return the items that are blurred against what is usual in their session."""
    sessions = np.array([item.session for item in items])
    usual = {session: np.median(sharp[sessions == session]) for session in set(sessions)}
    return [item for item, value in zip(items, sharp) if value < BLURRED * usual[item.session]]


def _backgrounds(items: list[Sample], signatures: np.ndarray) -> dict[str, int]:
    """Give every session the number of its background: sessions that can't be told apart by it share one."""
    sessions = np.array([item.session for item in items])
    names = sorted(set(sessions))
    seen = [Background(signatures[sessions == name]) for name in names]
    numbers: dict[str, int] = {}
    for index, name in enumerate(names):
        alike = {numbers[names[other]] for other in range(index) if seen[index].alike(seen[other])}
        numbers[name] = min(alike, default=index)
        for other in names[:index]:  # this session may join what was held for different backgrounds
            if numbers[other] in alike:
                numbers[other] = numbers[name]
    return numbers


def _advice(rows: dict[str, Row], items: list[Sample], backgrounds: set[int]) -> Iterator[str]:
    """Say in plain words what to do next."""
    labels_of: dict[str, set[str]] = {}
    for item in items:
        labels_of.setdefault(item.session, set()).add(item.label)
    for label, row in sorted(rows.items(), key=lambda pair: pair[1].sessions):
        if 0 < row.sessions < ENOUGH_SESSIONS:
            missing = ENOUGH_SESSIONS - row.sessions
            yield (
                f"record {label} in {missing} more session{'s' * (missing > 1)}, each in another place or light: with "
                f"{row.sessions} of them its accuracy can't be measured honestly"
            )
        elif row.frames < ENOUGH_FRAMES:
            yield f"record more of {label}: {row.frames} frames are few"
    if len(backgrounds) == 1 and items:
        yield "move the camera: every session shows one background, and the model may learn that instead"
    for label, row in rows.items():
        if row.backgrounds == 1 and len(backgrounds) > 1:
            yield f"record {label} somewhere else too: all of it has one background, which may pass for the label"
    shared = {session for session, labels in labels_of.items() if len(labels) > 1}
    for label in rows:
        without = sorted(session for session in shared if label not in labels_of[session])
        if without:
            yield f"record {label} in {_list(without)} too: the other labels were recorded there"
    most = max(rows, key=lambda label: rows[label].frames)
    for label, row in rows.items():
        if IMBALANCE * row.frames < rows[most].frames:
            yield f"record more of {label}: {row.frames} frames against {rows[most].frames} of {most}"
    if not {"none", "nothing", "background", "empty"} & {label.lower() for label in rows}:
        yield "record what is there when none of the labels is, as one more label: none"


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def thumbnail(path: Path) -> np.ndarray | None:
    """Return a picture for a report, uint8 [90, 120, 3] BGR, or None if it can't be read."""
    try:
        return resize(read_image(path), (90, 120))
    except UnreadableImage:
        return None
