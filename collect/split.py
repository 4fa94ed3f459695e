"""Choose the images for validation and for the test. A scene stays whole: the sessions of one place.

On images of a scene that was trained on, accuracy tells how well the model remembers. It is many points higher than
the accuracy in a new room.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Iterator, Sequence

from teachcam.collect.dataset import Sample

NUM_PARTS = 5  # of what is not divided by scenes


@dataclass(frozen=True)
class Split:
    """Samples to train on and samples for validation."""

    train: list[Sample]
    validation: list[Sample]
    labels_split_by_time: tuple[str, ...] = ()  # labels with too few scenes: their last images are for validation
    left_out_scene: str = ""  # the scene that is for validation, if it is exactly one

    @property
    def validation_scenes(self) -> list[str]:
        """The scenes that are for validation as a whole, sorted."""
        if self.left_out_scene:
            return [self.left_out_scene]
        trained_on = {sample.scene for sample in self.train}
        return sorted({sample.scene for sample in self.validation} - trained_on)


class _AllBut(Sequence):
    """The samples that are not for validation. A split for each of 1,000 scenes would else hold as many long lists."""

    def __init__(self, samples: list[Sample], validation: list[Sample]):
        self._samples, self._validation = samples, set(validation)

    def __len__(self) -> int:
        return len(self._samples) - len(self._validation)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for sample in self._samples if sample not in self._validation)

    def __getitem__(self, index):
        return list(self)[index]


def split_by_scene(samples: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Take whole scenes for validation, until they hold at least `fraction` of each label's images.

    A scene is taken with all its labels. Each label keeps at least one scene to train on. A label with too few
    scenes is split by time instead: its last images are for validation. Before them a gap of half as many images is
    left out. Accuracy on those images is optimistic, so `labels_split_by_time` names the label.

    Args:
        samples: All samples, each label's in the order of time.
        fraction: Fraction of each label's images.
        seed: Seed of the order in which scenes are taken.
    """
    scenes_of = _scenes_by_label(samples)
    num_images = Counter((sample.label, sample.scene) for sample in samples)

    taken: set[str] = set()
    shuffled = _shuffled_scenes(samples, seed)
    for label in sorted(scenes_of, key=lambda name: (len(scenes_of[name]), name)):  # fewest scenes first
        target = fraction * sum(num_images[label, scene] for scene in scenes_of[label])
        for scene in (name for name in shuffled if name in scenes_of[label]):
            if sum(num_images[label, name] for name in taken & scenes_of[label]) >= target:
                break
            if _every_label_keeps_one(scenes_of, taken | {scene}):
                taken.add(scene)

    train, validation = _partition(samples, taken)
    split_by_time = tuple(sorted(label for label in scenes_of if not taken & scenes_of[label]))
    of_labels, dropped = _group_by(train, "label"), set()
    for label in split_by_time:
        of_label = of_labels[label]
        num_validation = max(1, round(fraction * len(of_label)))
        gap = -(-num_validation // 2)
        tail = of_label[len(of_label) - num_validation :]
        dropped |= set(of_label[max(1, len(of_label) - num_validation - gap) :])
        validation += tail if len(of_label) > 1 else []
    train = [sample for sample in train if sample not in dropped]
    return Split(train, validation, split_by_time)


def split_at_random(samples: list[Sample], fraction: float = 0.2, seed: int = 0) -> Split:
    """Take random images of each label for validation, to compare with tutorials that do so.

    Of a recording, these are neighbors of images that are trained on.
    """
    validation: set[Sample] = set()
    for label, of_label in sorted(_group_by(samples, "label").items()):
        # Of two images or more, each side gets at least one.
        num_validation = min(max(1, round(fraction * len(of_label))), len(of_label) - 1)
        validation |= set(random.Random(f"{seed} {label}").sample(of_label, num_validation))
    return _split_off(samples, validation)


def folds_by_scene(samples: list[Sample], num_folds: int, seed: int = 0) -> list[Split]:
    """Return the splits of a cross-validation, in which each scene is for validation once.

    A scene stays out of validation if a label would have nothing left to train on. Folds hold about equally many
    images. Fewer folds come back if there are fewer scenes, and none if every scene is the only one of a label.
    """
    num_images = Counter(sample.scene for sample in samples)
    folds: list[set[str]] = [set() for _ in range(min(num_folds, len(num_images)))]
    for scene in sorted(_shuffled_scenes(samples, seed), key=lambda name: -num_images[name]):
        min(folds, key=lambda fold: sum(num_images[name] for name in fold)).add(scene)
    scenes_of = _scenes_by_label(samples)
    splits = []
    for fold in folds:
        taken: set[str] = set()
        for scene in sorted(fold):
            if _every_label_keeps_one(scenes_of, taken | {scene}):
                taken.add(scene)
        if taken:
            splits.append(Split(*_partition(samples, taken)))
    return splits


def leave_one_out(samples: list[Sample]) -> list[Split]:
    """Return a split for each scene, in which that scene is for validation.

    A scene is left out only if every label keeps a scene to train on. A label that no such scene shows is split by
    time: NUM_PARTS further splits have a part of its images each for validation. Accuracy on those is optimistic,
    because the other parts are of the same scene, so `labels_split_by_time` names the label.

    Args:
        samples: All samples, each label's in the order of time.
    """
    scenes_of = _scenes_by_label(samples)
    scenes = sorted(set.union(*scenes_of.values()))
    taken = [scene for scene in scenes if _every_label_keeps_one(scenes_of, {scene})]
    by_time = tuple(sorted(label for label, own in scenes_of.items() if not own & set(taken)))
    of_labels, of_scenes = _group_by(samples, "label"), _group_by(samples, "scene")
    splits = [
        Split(_AllBut(samples, of_scenes[scene]), of_scenes[scene], by_time, scene)  # type: ignore[arg-type]
        for scene in taken
    ]
    parts = _divide([of_labels[label] for label in by_time])
    return splits + [replace(_split_off(samples, part), labels_split_by_time=by_time) for part in parts]


def merge_into_folds(samples: list[Sample], splits: list[Split], num_folds: int) -> list[Split]:
    """Merge the splits of `leave_one_out` or `random_folds` into fewer, with about equally many images for validation.

    Every label keeps a scene to train on, so a split that fits into no fold is left out. Returns [] if only one fold
    has something to validate on.
    """
    folds: list[set[Sample]] = [set() for _ in range(num_folds)]
    num_left = [Counter(sample.label for sample in samples) for _ in folds]
    for split in sorted(splits, key=lambda split: -len(split.validation)):
        own = Counter(sample.label for sample in split.validation)
        for number in sorted(range(num_folds), key=lambda number: len(folds[number])):
            if all(num_left[number][label] > count for label, count in own.items()):
                folds[number] |= set(split.validation)
                num_left[number] -= own
                break
    folds = [fold for fold in folds if fold]
    by_time = splits[0].labels_split_by_time if splits else ()
    return [replace(_split_off(samples, fold), labels_split_by_time=by_time) for fold in folds if len(folds) > 1]


def random_folds(samples: list[Sample], seed: int = 0) -> list[Split]:
    """Return NUM_PARTS splits, in which each image is for validation once. See `split_at_random`."""
    of_labels = list(_group_by(samples, "label").values())
    for of_label in of_labels:
        random.Random(f"{seed} {of_label[0].label}").shuffle(of_label)
    return [_split_off(samples, part) for part in _divide(of_labels)]


def _divide(of_labels: list[list[Sample]]) -> list[set[Sample]]:
    """Divide each label's samples into NUM_PARTS parts, in their order. A single sample stays out."""
    parts: list[set[Sample]] = [set() for _ in range(NUM_PARTS)]
    for of_label in of_labels:
        for index, sample in enumerate(of_label if len(of_label) > 1 else []):
            parts[index * NUM_PARTS // len(of_label)].add(sample)
    return [part for part in parts if part]


def _split_off(samples: list[Sample], validation: set[Sample]) -> Split:
    return Split(
        [sample for sample in samples if sample not in validation],
        [sample for sample in samples if sample in validation],
    )


def take_test_scenes(samples: list[Sample], wanted: list[str], seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """Set the scenes of `--test` apart.

    Args:
        samples: All samples.
        wanted: Names of scenes, or of sessions, whose scenes are meant; or one fraction of the images, such as 0.2.
        seed: Seed of the choice by fraction.

    Returns:
        The remaining samples and the test samples.

    Raises:
        ValueError: with one line for the user, if a scene does not exist or a label would lose its last scene.
    """
    scene_of = {name: sample.scene for sample in samples for name in (sample.session, sample.scene)}
    if len(wanted) == 1 and wanted[0] not in scene_of and _is_fraction(wanted[0]):
        taken = split_by_scene(samples, float(wanted[0]), seed).validation_scenes
        if not taken:
            raise ValueError("no scene can be spared: each is the only one of a label; record in more places")
    else:
        if unknown := sorted(set(wanted) - set(scene_of)):
            scenes = sorted({sample.scene for sample in samples})
            raise ValueError(f"no scene {unknown[0]!r}: there are {', '.join(scenes[:12])}")
        taken = [scene_of[name] for name in wanted]
        if not _every_label_keeps_one(_scenes_by_label(samples), set(taken)):
            raise ValueError(f"without {', '.join(taken)} a label has no scene left to train on")
    return _partition(samples, set(taken))


def _is_fraction(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _partition(samples: list[Sample], scenes: set[str]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples outside these scenes and the samples in them."""
    return (
        [sample for sample in samples if sample.scene not in scenes],
        [sample for sample in samples if sample.scene in scenes],
    )


def _every_label_keeps_one(scenes_of: dict[str, set[str]], without: set[str]) -> bool:
    return not any(scenes <= without for scenes in scenes_of.values())


def _group_by(samples: list[Sample], field: str) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(getattr(sample, field), []).append(sample)
    return groups


def _scenes_by_label(samples: list[Sample]) -> dict[str, set[str]]:
    scenes_of: dict[str, set[str]] = {}
    for sample in samples:
        scenes_of.setdefault(sample.label, set()).add(sample.scene)
    return scenes_of


def _shuffled_scenes(samples: list[Sample], seed: int) -> list[str]:
    shuffled = sorted({sample.scene for sample in samples})
    random.Random(seed).shuffle(shuffled)
    return shuffled
