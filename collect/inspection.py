"""Inspect a dataset: count what it contains, find what is wrong with it, and advise what to record next."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import numpy as np

from teachcam.collect.dataset import Sample, describe_guessed_sessions
from teachcam.collect.quality import (
    BLUR_RATIO,
    SIGNATURE,
    exposure_fault,
    sharpness,
    signature,
    to_small_gray,
)
from teachcam.collect.scenes import find_scenes
from teachcam.errors import UnreadableImage
from teachcam.images import read_image
from teachcam.labels import has_background_label
from teachcam.preprocessing import resize

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

# Two images are the same if their signatures differ nowhere by more gray levels. On recordings of 16 rooms the two
# closest images with different labels are 37 apart. Saved again as JPEG of quality 70, 19 of 20 images move by up to 7.
SAME_IMAGE = 8  # for images under different labels
NEAR_DUPLICATE = 6  # for images of one label
ENOUGH_IMAGES, ENOUGH_SCENES = 20, 3  # of a label
MIN_FOR_INDEX = 5000  # images: below, comparing all pairs takes under two seconds, and needs no scipy
CHUNK = 1000  # images that are looked up in the index at once
MAX_IMBALANCE = 3  # how many times as many images one label may have as another


@dataclass
class LabelSummary:
    """The numbers of one label."""

    images: int = 0  # readable ones
    sessions: int = 0
    scenes: int = 0  # places
    blurred: int = 0
    dark: int = 0
    bright: int = 0
    near_duplicates: int = 0
    unreadable: int = 0


@dataclass
class Finding:
    """One kind of fault in the dataset."""

    kind: str
    text: str  # one line for the user
    samples: list[Sample] = field(default_factory=list)  # that have the fault
    error: bool = False  # True if training would learn something wrong, False for a warning


@dataclass
class Inspection:
    """The results for a whole dataset."""

    labels: dict[str, LabelSummary]
    scenes: dict[str, list[Sample]]  # the readable samples of each
    findings: list[Finding]
    advice: list[str]  # what to do next, the most useful first

    @property
    def errors(self) -> list[Finding]:
        """The findings that should stop training."""
        return [finding for finding in self.findings if finding.error]


@dataclass
class Measurements:
    """The measurements of each image. `signatures` and `sharpness` are those of `readable`, in its order."""

    readable: list[Sample] = field(default_factory=list)
    signatures: list[np.ndarray] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    unreadable: list[Sample] = field(default_factory=list)
    exposure_faults: dict[str, list[Sample]] = field(default_factory=lambda: {"too dark": [], "too bright": []})

    @property
    def signature_array(self) -> np.ndarray:
        """The signatures, uint8 [N, 24 * 32 * 3]."""
        return np.array(self.signatures, np.uint8).reshape(len(self.readable), SIGNATURE[0] * SIGNATURE[1] * 3)

    def add(self, sample: Sample, image: np.ndarray | None) -> None:
        """Measure an image, uint8 [H, W, 3] BGR, or None for an unreadable one."""
        if image is None:
            self.unreadable.append(sample)
            return
        small_gray = to_small_gray(image)
        self.readable.append(sample)
        self.signatures.append(signature(image).astype(np.uint8))
        self.sharpness.append(sharpness(small_gray))
        if fault := exposure_fault(small_gray):
            self.exposure_faults[fault].append(sample)


def inspect_samples(samples: list[Sample]) -> Inspection:
    """Read and inspect a dataset."""
    measured = Measurements()
    for sample in samples:
        try:
            image = read_image(sample.path)
        except UnreadableImage:
            image = None
        measured.add(sample, image)
    return inspect_measured(measured)


def inspect_measured(measured: Measurements) -> Inspection:
    """Inspect a dataset whose images have been measured."""
    samples = measured.readable + measured.unreadable
    readable, unreadable, faults = measured.readable, measured.unreadable, measured.exposure_faults
    signatures = measured.signature_array
    same, repeated = _find_duplicates(readable, signatures)
    blurred = _find_blurred(readable, np.array(measured.sharpness))
    readable = find_scenes(readable, signatures).mark(readable)

    labels = {label: LabelSummary() for label in sorted({sample.label for sample in samples})}
    for name, found in (
        ("images", readable),
        ("blurred", blurred),
        ("dark", faults["too dark"]),
        ("bright", faults["too bright"]),
        ("near_duplicates", repeated),
        ("unreadable", unreadable),
    ):
        for sample in found:
            setattr(labels[sample.label], name, getattr(labels[sample.label], name) + 1)
    for label, _ in {(sample.label, sample.session) for sample in readable}:
        labels[label].sessions += 1
    for label, _ in {(sample.label, sample.scene) for sample in readable}:
        labels[label].scenes += 1
    scenes: dict[str, list[Sample]] = {}
    for sample in sorted(readable, key=lambda sample: (sample.scene, sample.session)):
        scenes.setdefault(sample.scene, []).append(sample)

    findings = [
        Finding("same image", f"{_plural(same)} under two labels at once", same, error=True),
        Finding("unreadable", f"{_plural(unreadable, 'unreadable file')}, which training skips", unreadable),
        Finding("near-duplicate", f"{_plural(repeated)} like an earlier one, which teach nothing new", repeated),
        Finding("blurred", f"{_plural(blurred, 'blurred image')}, compared with others of the session", blurred),
        *(Finding(fault, f"{_plural(found)} {fault}", found) for fault, found in faults.items()),
    ]
    findings = [finding for finding in findings if finding.samples]
    if sum(summary.images > 0 for summary in labels.values()) < 2:
        findings.insert(0, Finding("one label", "there is only one label, and training needs two", error=True))
    if guess := describe_guessed_sessions(samples):
        findings.append(Finding("guessed sessions", guess))
    return Inspection(labels, scenes, findings, list(_advise(labels, scenes)))


def thumbnail(path: Path) -> np.ndarray | None:
    """Return a small copy of an image file for a report, uint8 [90, 120, 3] BGR. None if it is unreadable."""
    try:
        return resize(read_image(path), (90, 120))
    except UnreadableImage:
        return None


def _find_duplicates(samples: list[Sample], signatures: np.ndarray) -> tuple[list[Sample], list[Sample]]:
    """Return the samples whose image is under another label, too, and those that repeat an earlier one of their label.

    Of images that are all alike, the first is no duplicate, so that one of them stays.
    """
    labels = np.array([sample.label for sample in samples])
    same, near = np.zeros(len(samples), bool), np.zeros(len(samples), bool)
    for index, candidates in enumerate(_find_candidates(signatures)):
        is_own = labels[candidates] == labels[index]
        needed = ~(is_own & near[candidates])  # the image that a duplicate repeats is compared, too
        candidates, is_own = candidates[needed], is_own[needed]
        if not len(candidates):
            continue
        own_signature = signatures[index].astype(np.float32)
        difference = np.abs(signatures[candidates] - own_signature).max(axis=1)
        near[index] = (is_own & (difference <= NEAR_DUPLICATE)).any()
        if (others := candidates[~is_own & (difference <= SAME_IMAGE)]).size:
            same[index] = same[others] = True
    return [samples[index] for index in np.flatnonzero(same)], [
        samples[index] for index in np.flatnonzero(near & ~same)
    ]


def _find_candidates(signatures: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each image the earlier images that it could repeat, int [n].

    Averages over 4x4 pixels can't differ by more than the pixels. They exclude most pairs at a sixteenth of the work.
    For many images a k-d tree excludes most of them before, by averages over 8x8 pixels and the colors, in time that
    grows about with their number.
    """
    num_images = len(signatures)
    blocks = signatures.reshape(num_images, 6, 4, 8, 4, 3)
    coarse = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(num_images, 6 * 8 * 3)
    coarser = coarse.reshape(num_images, 3, 2, 4, 2, 3).mean(axis=(2, 4, 5)).reshape(num_images, 3 * 4)
    tree = _make_tree(coarser) if num_images >= MIN_FOR_INDEX else None
    for start in range(0, num_images, CHUNK):
        part = slice(start, start + CHUNK)
        if tree is not None:  # the mean of three colors is rounded: a margin
            alike = tree.query_ball_point(coarser[part], SAME_IMAGE + 0.01, p=np.inf, return_sorted=True)
        for index, image in enumerate(coarse[part], start):
            if tree is None:
                yield np.flatnonzero(np.abs(coarse[:index] - image).max(axis=1) <= SAME_IMAGE)
            else:
                earlier = np.array(alike[index - start], int)
                earlier = earlier[earlier < index]
                yield earlier[np.abs(coarse[earlier] - image).max(axis=1) <= SAME_IMAGE]


def _make_tree(points: np.ndarray) -> cKDTree | None:
    """Return a k-d tree of points, float32 [N, D], or None without scipy, which a device need not have."""
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        return None
    return cKDTree(points)


def _find_blurred(samples: list[Sample], sharp: np.ndarray) -> list[Sample]:
    """Return the samples that are much less sharp than the median of their session."""
    of_session: dict[str, list[float]] = defaultdict(list)
    for sample, value in zip(samples, sharp):
        of_session[sample.session].append(value)
    usual = {session: np.median(values) for session, values in of_session.items()}
    return [sample for sample, value in zip(samples, sharp) if value < BLUR_RATIO * usual[sample.session]]


def _advise(labels: dict[str, LabelSummary], scenes: dict[str, list[Sample]]) -> Iterator[str]:
    """Yield what to do next, one sentence each."""
    if len(scenes) == 1:
        yield (
            "record every label in another place, too: everything was recorded in one, and the model may learn that "
            "place. If it was not, name the places with --place"
        )
    for label, summary in sorted(labels.items(), key=lambda entry: entry[1].scenes):
        if 0 < summary.scenes < ENOUGH_SCENES and len(scenes) > 1:
            missing = ENOUGH_SCENES - summary.scenes
            yield (
                f"record {label} in {missing} more place{'s' * (missing > 1)}: with {summary.scenes} of them its "
                "accuracy can't be measured reliably"
            )
        elif summary.images < ENOUGH_IMAGES:
            yield f"record more of {label}: {summary.images} images are few"
    labels_of = {scene: {sample.label for sample in samples} for scene, samples in scenes.items()}
    for label in labels:
        missing_in = [scene for scene, present in labels_of.items() if len(present) > 1 and label not in present]
        if missing_in:
            yield f"record {label} in {join_names(missing_in)} too: the other labels were recorded there"
    largest = max(labels, key=lambda label: labels[label].images)
    for label, summary in labels.items():
        if MAX_IMBALANCE * summary.images < labels[largest].images:
            yield f"record more of {label}: it has {summary.images} images, and {largest} has {labels[largest].images}"
    if not has_background_label(labels):
        yield "record a further label, none, with what the camera sees when no other label is there"


def _plural(samples: list[Sample], noun: str = "image") -> str:
    return f"{len(samples)} {noun}{'s' * (len(samples) != 1)}"


def join_names(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
