"""Choose the images for validation and for the test. A session's images are near-duplicates, so a session stays whole.

On images of a session that was trained on, accuracy tells how well the model remembers. It is many points higher than
the accuracy in a new room.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from teachcam.collect.dataset import Sample


@dataclass(frozen=True)
class Split:
    """Samples to train on and samples for validation."""

    train: list[Sample]
    validation: list[Sample]
    labels_split_by_time: tuple[str, ...] = ()  # labels with too few sessions: their last images are for validation

    @property
    def validation_sessions(self) -> list[str]:
        """The sessions that are for validation as a whole, sorted."""
        trained_on = {sample.session for sample in self.train}
        return sorted({sample.session for sample in self.validation} - trained_on)


def split_by_session(samples: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Take whole sessions for validation, until they hold at least `fraction` of each label's images.

    A session is taken with all its labels. Each label keeps at least one session to train on. A label with too few
    sessions is split by time instead: its last images are for validation. Before them a gap of half as many images is
    left out. Accuracy on those images is optimistic, so `labels_split_by_time` names the label.

    Args:
        samples: all samples, each label's in the order of time.
        fraction: of each label's images.
        seed: of the order in which sessions are taken.
    """
    sessions_of = _sessions_by_label(samples)
    num_images = Counter((sample.label, sample.session) for sample in samples)

    taken: set[str] = set()
    shuffled = _shuffled_sessions(samples, seed)
    for label in sorted(sessions_of, key=lambda name: (len(sessions_of[name]), name)):  # fewest sessions first
        target = fraction * sum(num_images[label, session] for session in sessions_of[label])
        for session in (name for name in shuffled if name in sessions_of[label]):
            if sum(num_images[label, name] for name in taken & sessions_of[label]) >= target:
                break
            if _every_label_keeps_one(sessions_of, taken | {session}):
                taken.add(session)

    train, validation = _partition(samples, taken)
    split_by_time = tuple(sorted(label for label in sessions_of if not taken & sessions_of[label]))
    for label in split_by_time:
        of_label = [sample for sample in train if sample.label == label]
        num_validation = max(1, round(fraction * len(of_label)))
        gap = -(-num_validation // 2)
        tail = of_label[len(of_label) - num_validation :]
        dropped = set(of_label[max(1, len(of_label) - num_validation - gap) :])
        train = [sample for sample in train if sample not in dropped]
        validation += tail if len(of_label) > 1 else []
    return Split(train, validation, split_by_time)


def split_at_random(samples: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Take random images of each label for validation, to compare with tutorials that do so.

    Of a recording, these are neighbors of images that are trained on.
    """
    validation: set[Sample] = set()
    for label in sorted({sample.label for sample in samples}):
        of_label = [sample for sample in samples if sample.label == label]
        # Of two images or more, each side gets at least one.
        num_validation = min(max(1, round(fraction * len(of_label))), len(of_label) - 1)
        validation |= set(random.Random(f"{seed} {label}").sample(of_label, num_validation))
    return Split(
        [sample for sample in samples if sample not in validation],
        [sample for sample in samples if sample in validation],
    )


def folds_by_session(samples: list[Sample], num_folds: int, seed: int = 0) -> list[Split]:
    """Return the splits of a cross-validation, in which each session is for validation once.

    A session stays out of validation if a label would have nothing left to train on. Folds hold about equally many
    images. Fewer folds come back if there are fewer sessions, and none if every session is the only one of a label.
    """
    num_images = Counter(sample.session for sample in samples)
    folds: list[set[str]] = [set() for _ in range(min(num_folds, len(num_images)))]
    for session in sorted(_shuffled_sessions(samples, seed), key=lambda name: -num_images[name]):
        min(folds, key=lambda fold: sum(num_images[name] for name in fold)).add(session)
    sessions_of = _sessions_by_label(samples)
    splits = []
    for fold in folds:
        taken: set[str] = set()
        for session in sorted(fold):
            if _every_label_keeps_one(sessions_of, taken | {session}):
                taken.add(session)
        if taken:
            splits.append(Split(*_partition(samples, taken)))
    return splits


def take_test_sessions(samples: list[Sample], wanted: list[str], seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """Set the sessions of `--test` apart.

    Args:
        samples: all samples.
        wanted: names of sessions, or one fraction of the images, such as 0.2.
        seed: of the choice by fraction.

    Returns:
        The remaining samples and the test samples.

    Raises:
        ValueError: with one line for the user, if a session does not exist or a label would lose its last session.
    """
    known = {sample.session for sample in samples}
    if len(wanted) == 1 and wanted[0] not in known and _is_fraction(wanted[0]):
        taken = split_by_session(samples, float(wanted[0]), seed).validation_sessions
        if not taken:
            raise ValueError("no session can be spared: each is the only one of a label; record more sessions")
    else:
        if unknown := sorted(set(wanted) - known):
            raise ValueError(f"no session {unknown[0]!r}: there are {', '.join(sorted(known)[:12])}")
        taken = wanted
        if not _every_label_keeps_one(_sessions_by_label(samples), set(taken)):
            raise ValueError(f"without {', '.join(taken)} a label has no session left to train on")
    return _partition(samples, set(taken))


def _is_fraction(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _partition(samples: list[Sample], sessions: set[str]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples outside these sessions and the samples in them."""
    return (
        [sample for sample in samples if sample.session not in sessions],
        [sample for sample in samples if sample.session in sessions],
    )


def _every_label_keeps_one(sessions_of: dict[str, set[str]], without: set[str]) -> bool:
    return all(sessions - without for sessions in sessions_of.values())


def _sessions_by_label(samples: list[Sample]) -> dict[str, set[str]]:
    sessions_of: dict[str, set[str]] = {}
    for sample in samples:
        sessions_of.setdefault(sample.label, set()).add(sample.session)
    return sessions_of


def _shuffled_sessions(samples: list[Sample], seed: int) -> list[str]:
    shuffled = sorted({sample.session for sample in samples})
    random.Random(seed).shuffle(shuffled)
    return shuffled
