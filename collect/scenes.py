"""Find the scenes of a dataset: the sessions that were recorded in one place.

    scenes = find_scenes(samples, signatures)

A label is usually recorded in a session of its own. What is behind it is then seen with the other labels, too. So a
session that was left out of training says little about another place; a scene that was left out does.

The user names a place with `capture.py --place`. Sessions without one are compared: those in front of the same
background are one scene, and so are those that were recorded one after another, unless their backgrounds differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from teachcam.collect.dataset import Sample
from teachcam.collect.quality import SIGNATURE

# In gray levels and pixels of a signature. On recordings of 16 rooms, with a session for each room and label, SAME_AREA
# joins three fifths of the pairs from one room, and one in two hundred of those from two. If another light is allowed
# for, it joins four fifths, and one in thirty: that is for sessions recorded one after another.
STILL = 8  # a pixel belongs to the background if it typically changes by less in a session
SAME_PIXEL = 16  # two backgrounds agree in a pixel if they differ by less
MIN_SHARED = 60  # pixels that two backgrounds must have in common to be compared, of 768
SAME_AREA = 0.6  # fraction of the common pixels that agree
CHUNK = 500  # sessions that are compared with all others at once: 25 MB
SOON = 300  # seconds from the start of a session to that of the next, if both are likely in one place


@dataclass(frozen=True)
class Scenes:
    """The scene and the background of each session. A scene that nobody has named has its first session's name."""

    scene_of: dict[str, str]  # of each session
    background_of: dict[str, str]  # the first session in front of exactly the same background, within the scene

    def mark(self, samples: list[Sample]) -> list[Sample]:
        """Return the samples with their scenes."""
        return [replace(sample, scene=self.scene_of[sample.session]) for sample in samples]


def find_scenes(samples: list[Sample], signatures: np.ndarray) -> Scenes:
    """Find the scenes.

    Sessions that the user has named differently are never joined. A session with several labels counts as named, too:
    whoever made the dataset gave it its name.

    Args:
        samples: The images, from `list_samples`.
        signatures: Their signatures (quality.py), uint8 or float32 [N, 24 * 32 * 3].
    """
    rows: dict[str, list[int]] = {}  # of each session
    labels: dict[str, set[str]] = {}
    places: dict[str, str] = {}
    for row, sample in enumerate(samples):
        rows.setdefault(sample.session, []).append(row)
        labels.setdefault(sample.session, set()).add(sample.label)
        if sample.scene != sample.session:
            places[sample.session] = sample.scene
    sessions = sorted(labels)
    backgrounds = _Backgrounds([signatures[rows[session]] for session in sessions])
    times = np.array([_start_time(session) for session in sessions])
    scenes = _Groups([places.get(session) or (session if len(labels[session]) > 1 else None) for session in sessions])
    in_place: dict[str, int] = {}
    for index, session in enumerate(sessions):
        if session in places:
            scenes.join(index, in_place.setdefault(places[session], index))
    same = []  # pairs in front of the same background
    for index in range(1, len(sessions)):
        alike = backgrounds.find_like(index)
        soon = np.flatnonzero(np.abs(times[:index] - times[index]) < SOON).tolist()
        for other in (*alike, *(other for other in soon if backgrounds.may_be_like(index, other))):
            scenes.join(index, other)
        same += [(index, other) for other in alike]
    exact = _Groups([None] * len(sessions))
    for first, second in same:
        if scenes.first(first) == scenes.first(second):
            exact.join(first, second)
    return Scenes(
        {session: scenes.name(index) or sessions[scenes.first(index)] for index, session in enumerate(sessions)},
        {session: sessions[exact.first(index)] for index, session in enumerate(sessions)},
    )


class _Backgrounds:
    """The still parts of each session's images."""

    def __init__(self, signatures: list[np.ndarray]):
        num_pixels = SIGNATURE[0] * SIGNATURE[1]
        medians = np.empty((len(signatures), 3 * num_pixels), np.float32)
        changes = np.empty_like(medians)
        for index, images in enumerate(signatures):
            medians[index] = np.median(images, axis=0)
            changes[index] = np.median(np.abs(images - medians[index]), axis=0)
        self._medians = medians.reshape(-1, num_pixels, 3)
        self._still = changes.reshape(-1, num_pixels, 3).max(axis=2) < STILL
        self._could_agree = self._find_candidates()

    def find_like(self, index: int) -> list[int]:
        """Return the sessions before a session that have the same background."""
        others = np.flatnonzero(self._could_agree[index, :index])
        shared = self._still[others] & self._still[index]
        agree = (np.abs(self._medians[others] - self._medians[index]) < SAME_PIXEL).all(axis=2) & shared
        return others[agree.sum(axis=1) > SAME_AREA * shared.sum(axis=1)].tolist()

    def _find_candidates(self) -> np.ndarray:
        """Return which pairs of sessions could have the same background, bool [N, N].

        Of a pixel only the green channel is compared, in steps of SAME_PIXEL: pixels that agree are at most one step
        apart. Counting such pixels is a product of matrices. All pairs of 1,000 sessions take 0.5 s, in place of 8 s.
        """
        still = self._still.astype(np.float32)
        steps = (self._medians[:, :, 1] // SAME_PIXEL).astype(int)
        is_step = np.eye(256 // SAME_PIXEL, dtype=np.float32)
        is_near = is_step + np.eye(len(is_step), k=1, dtype=np.float32) + np.eye(len(is_step), k=-1, dtype=np.float32)
        width = still.shape[1] * len(is_step)
        near = (is_near[steps] * still[:, :, None]).reshape(len(steps), width)
        could_agree = np.empty((len(steps), len(steps)), bool)
        for start in range(0, len(steps), CHUNK):
            chunk = slice(start, start + CHUNK)
            own = (is_step[steps[chunk]] * still[chunk, :, None]).reshape(-1, width)
            num_shared = still[chunk] @ still.T
            could_agree[chunk] = (num_shared >= MIN_SHARED) & (own @ near.T > SAME_AREA * num_shared)
        return could_agree

    def may_be_like(self, index: int, other: int) -> bool:
        """Return whether two sessions have the same background in another light, or too little to compare."""
        shared = self._still[index] & self._still[other]
        if shared.sum() < MIN_SHARED:
            return True
        difference = (self._medians[index] - self._medians[other])[shared]
        difference -= np.median(difference, axis=0)
        return bool((np.abs(difference) < SAME_PIXEL).all(axis=1).mean() > SAME_AREA)


class _Groups:
    """Disjoint groups of indices. Two groups with different names are never joined."""

    def __init__(self, names: list[str | None]):
        self._parents = list(range(len(names)))
        self._names = names

    def first(self, index: int) -> int:
        """Return the lowest index of a group."""
        while self._parents[index] != index:
            index = self._parents[index]
        return index

    def name(self, index: int) -> str | None:
        """Return the name of a group."""
        return self._names[self.first(index)]

    def join(self, index: int, other: int) -> None:
        """Join the groups of two indices, unless their names differ."""
        low, high = sorted((self.first(index), self.first(other)))
        names = {name for name in (self._names[low], self._names[high]) if name is not None}
        if low != high and len(names) < 2:
            self._parents[high] = low
            self._names[low] = min(names, default=None)


def _start_time(session: str) -> float:
    """Return when a session began, in seconds, by its name; NaN if the name has no time."""
    match = re.match(r"\d{8}T\d{6}", session)
    try:
        return datetime.strptime(match.group(), "%Y%m%dT%H%M%S").timestamp() if match else float("nan")
    except ValueError:
        return float("nan")
