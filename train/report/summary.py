"""What a run says of its accuracy, and what that is worth.

On sessions that were trained on, and on neighbors of frames that were, it tells how well the model remembers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from teachcam.collect.dataset import guessed_sessions
from teachcam.train.data.split import Split
from teachcam.train.metrics import interval


def before(splits: list[Split], way: str) -> Iterator[str]:
    """Say what will be held out: by one split, or by one for each fold; `way` is session or frames."""
    split = splits[0]
    if way == "frames":
        neighbors = ", neighbors of those" if len({item.session for item in split.train}) > 1 else ""
        yield f"training on {len(split.train)} frames; held out: {len(split.validation)} at random{neighbors}"
        return
    if guess := guessed_sessions(split.train + split.validation):
        yield guess
    if len(splits) > 1:
        yield f"cross-validation: one after another, {len(splits)} parts of the sessions are held out"
        return
    sessions = _sessions(len({item.session for item in split.train}))
    whole = _sessions(len(split.validation_sessions), "whole ")
    yield f"training on {len(split.train)} frames of {sessions}; held out: {len(split.validation)} frames of {whole}"
    if split.cut_labels:
        yield f"too few sessions to hold one out of {', '.join(split.cut_labels)}: record more, in other places"


def after(right: np.ndarray, splits: list[Split], way: str) -> Iterator[str]:
    """Say how accurate it is; `right` is bool [N], of the held-out frames of all splits in order."""
    if way == "frames" and len(right):
        low, high = interval(right, list(map(str, range(len(right)))))
        yield f"accuracy {right.mean():.3f} ({low:.2f} to {high:.2f}) on {len(right)} frames held out at random"
        return
    sessions = {session for split in splits for session in split.validation_sessions}
    validation = [item for split in splits for item in split.validation]
    whole = np.array([item.session in sessions for item in validation], bool)
    if whole.any():
        low, high = interval(right[whole], [item.session for item in validation if item.session in sessions])
        count = _sessions(len(sessions))
        each = "it was not trained on" if len(splits) == 1 else "each not trained on when it was asked"
        yield f"accuracy {right[whole].mean():.3f} ({low:.2f} to {high:.2f}) on {whole.sum()} frames of {count} {each}"
    if not whole.all():
        yield (
            f"accuracy {right[~whole].mean():.3f} on {(~whole).sum()} later frames of sessions it was trained on: "
            f"optimistic, it says little about another place ({', '.join(splits[0].cut_labels)})"
        )
    if not len(right):
        yield "accuracy: not measured, there was nothing to hold out"


def worth(by_frames: float, by_sessions: float) -> str:
    """Say what an accuracy on frames held out at random is worth, by what a head alone gets both ways."""
    return (
        f"what that is worth: a head alone gets {by_frames:.3f} on frames held out so, and {by_sessions:.3f} on whole "
        "sessions held out; in another place expect what sessions say"
    )


def _sessions(count: int, which: str = "") -> str:
    return f"{count} {which}session{'s' * (count != 1)}"
