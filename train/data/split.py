"""Which frames are held out. A session is never cut: its frames are near-duplicates of each other.

An accuracy on frames of a session that was trained on tells how well the model remembers, not how well it
will do in a new room; it comes out many points too high.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from teachcam.collect.dataset import Sample


@dataclass(frozen=True)
class Split:
    """Two lists of items; `cut_labels` are the labels that could not spare a session, and were cut by time."""

    train: list[Sample]
    validation: list[Sample]
    cut_labels: tuple[str, ...] = ()

    @property
    def validation_sessions(self) -> list[str]:
        """The sessions that were held out whole, sorted."""
        trained_on = {item.session for item in self.train}
        return sorted({item.session for item in self.validation} - trained_on)


def split_by_session(items: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Hold out whole sessions until at least `fraction` of each label's frames are held out, if that can be.

    A session of that name is held out under every label it has. Each label keeps at least one session to train
    on. A label that can't spare a session is cut by time instead: its last frames are held out, and half as many
    before them are a gap, left out of both sides. What is measured on those is optimistic, and `cut_labels` says so.
    """
    sessions = _sessions_by_label(items)
    frames = Counter((item.label, item.session) for item in items)

    held: set[str] = set()
    shuffled = _shuffled_sessions(items, seed)
    for label in sorted(sessions, key=lambda name: (len(sessions[name]), name)):  # the scarcest chooses first
        wanted = fraction * sum(frames[label, session] for session in sessions[label])
        for session in (name for name in shuffled if name in sessions[label]):
            if sum(frames[label, name] for name in held & sessions[label]) >= wanted:
                break
            if _all_labels_keep_one(sessions, held | {session}):
                held.add(session)

    train, validation = _take(items, held)
    cut = tuple(sorted(label for label in sessions if not held & sessions[label]))
    for label in cut:
        own = [item for item in train if item.label == label]
        many = max(1, round(fraction * len(own)))
        gap = -(-many // 2)
        tail = own[len(own) - many :]
        dropped = set(own[max(1, len(own) - many - gap) :])
        train = [item for item in train if item not in dropped]
        validation += tail if len(own) > 1 else []
    return Split(train, validation, cut)


def split_frames(items: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Hold out frames of each label at random, as tutorials do: neighbors of what was trained on. To compare with."""
    validation: set[Sample] = set()
    for label in sorted({item.label for item in items}):
        own = [item for item in items if item.label == label]
        most = min(max(1, round(fraction * len(own))), len(own) - 1)  # one stays, one is held out where there are two
        validation |= set(random.Random(f"{seed} {label}").sample(own, most))
    return Split([item for item in items if item not in validation], [item for item in items if item in validation])


def folds_by_session(items: list[Sample], folds: int, seed: int = 0) -> list[Split]:
    """Cross-validation: every session is held out in one fold, unless a label would have nothing left to learn from.

    Folds hold about equally many frames. Fewer come back where there are fewer sessions, none where every session
    is the only one of some label.
    """
    frames = Counter(item.session for item in items)
    parts: list[set[str]] = [set() for _ in range(min(folds, len(frames)))]
    for session in sorted(_shuffled_sessions(items, seed), key=lambda name: -frames[name]):
        min(parts, key=lambda part: sum(frames[name] for name in part)).add(session)
    sessions = _sessions_by_label(items)
    splits = []
    for part in parts:
        spared: set[str] = set()
        for session in sorted(part):
            if _all_labels_keep_one(sessions, spared | {session}):
                spared.add(session)
        if spared:
            splits.append(Split(*_take(items, spared)))
    return splits


def take_sessions(items: list[Sample], wanted: list[str], seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """Part the items for `--test`: `wanted` are the names of sessions, or one fraction such as 0.2 of the frames.

    Returns the rest, and what was taken. Raises ValueError, with a line for the user, where that can't be done.
    """
    names = {item.session for item in items}
    if len(wanted) == 1 and wanted[0] not in names and _is_fraction(wanted[0]):
        taken = split_by_session(items, float(wanted[0]), seed).validation_sessions
        if not taken:
            raise ValueError("no session can be spared for a test: every one is the only one of its label")
    else:
        if unknown := sorted(set(wanted) - names):
            raise ValueError(f"no session {unknown[0]!r}: there are {', '.join(sorted(names)[:12])}")
        taken = wanted
        if not _all_labels_keep_one(_sessions_by_label(items), set(taken)):
            raise ValueError(f"without {', '.join(taken)} a label has nothing left to learn from")
    return _take(items, set(taken))


def _is_fraction(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _take(items: list[Sample], sessions: set[str]) -> tuple[list[Sample], list[Sample]]:
    return (
        [item for item in items if item.session not in sessions],
        [item for item in items if item.session in sessions],
    )


def _all_labels_keep_one(sessions: dict[str, set[str]], without: set[str]) -> bool:
    return all(theirs - without for theirs in sessions.values())


def _sessions_by_label(items: list[Sample]) -> dict[str, set[str]]:
    sessions: dict[str, set[str]] = {}
    for item in items:
        sessions.setdefault(item.label, set()).add(item.session)
    return sessions


def _shuffled_sessions(items: list[Sample], seed: int) -> list[str]:
    shuffled = sorted({item.session for item in items})
    random.Random(seed).shuffle(shuffled)
    return shuffled
