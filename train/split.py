"""Which frames are held out. A session is never cut: its frames are near-duplicates of each other.

An accuracy on frames of a session that was trained on tells how well the model remembers, not how well it
will do in a new room; it comes out many points too high.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from collect.dataset import Item


@dataclass(frozen=True)
class Split:
    """Two lists of items; `cut_labels` are the labels that could not spare a session, and were cut by time."""

    train: list[Item]
    held_out: list[Item]
    cut_labels: tuple[str, ...]

    @property
    def held_out_sessions(self) -> list[str]:
        """The sessions that were held out whole, sorted."""
        trained_on = {item.session for item in self.train}
        return sorted({item.session for item in self.held_out} - trained_on)


def split_by_session(items: list[Item], fraction: float = 0.2, seed: int = 0) -> Split:
    """Hold out whole sessions until at least `fraction` of each label's frames are held out, if that can be.

    A session of that name is held out under every label it has. Each label keeps at least one session to train
    on. A label that can't spare a session is cut by time instead: its last frames are held out, and half as many
    before them are a gap, left out of both sides. What is measured on those is optimistic, and `cut_labels` says so.
    """
    sessions: dict[str, set[str]] = {}  # label -> its sessions
    frames = Counter()  # (label, session) -> frames
    for item in items:
        sessions.setdefault(item.label, set()).add(item.session)
        frames[item.label, item.session] += 1

    held: set[str] = set()
    shuffled = sorted({item.session for item in items})
    random.Random(seed).shuffle(shuffled)
    for label in sorted(sessions, key=lambda name: (len(sessions[name]), name)):  # the scarcest chooses first
        wanted = fraction * sum(frames[label, session] for session in sessions[label])
        for session in (name for name in shuffled if name in sessions[label]):
            if sum(frames[label, name] for name in held & sessions[label]) >= wanted:
                break
            spared = all(theirs - held - {session} for theirs in sessions.values() if session in theirs)
            if spared:
                held.add(session)

    train = [item for item in items if item.session not in held]
    held_out = [item for item in items if item.session in held]
    cut = tuple(sorted(label for label in sessions if not held & sessions[label]))
    for label in cut:
        own = [item for item in train if item.label == label]
        many = max(1, round(fraction * len(own)))
        gap = -(-many // 2)
        tail = own[len(own) - many :]
        dropped = set(own[max(1, len(own) - many - gap) :])
        train = [item for item in train if item not in dropped]
        held_out += tail if len(own) > 1 else []
    return Split(train, held_out, cut)
