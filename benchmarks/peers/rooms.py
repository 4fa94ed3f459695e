"""The images that all peers train on and are tested with: rooms, a third of which is held out, three times."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2

from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.hands import LABELS
from teachcam.collect.synthetic import render
from teachcam.errors import UserError

SYNTHETIC = "synthetic"  # in place of a folder: hands that the synthetic camera draws
NUM_FOLDS = 3
NUM_ROOMS, IMAGES_PER_ROOM = 24, 5  # of each label; as in `make demo`
FIRST_ROOM = 201  # no setting of teachcam was chosen on these
NUM_QUICK_ROOMS, QUICK_IMAGES_PER_ROOM = 6, 3
EVERY = 6  # of the 30 images per second of a drawn session, one in so many is kept
CLIP_IMAGES = 120


@dataclass(frozen=True)
class Fold:
    """The images of one training and its test."""

    number: int
    train: Path  # a folder of links, LABEL/SESSION_NUMBER.jpg
    test: list[Sample]
    labels: list[str]
    num_train: int


def open_rooms(data: str, build: Path, quick: bool) -> list[Sample]:
    """Return all images of a dataset whose sessions are rooms. Draws the synthetic ones.

    Raises:
        UserError: There are too few rooms.
    """
    folder = _draw_rooms(build, quick) if data == SYNTHETIC else Path(data)
    samples = list_samples(folder)
    if len({sample.session for sample in samples}) < NUM_FOLDS:
        raise UserError(f"{data}: {NUM_FOLDS} rooms or more are needed, each a session of its own")
    return samples


def make_folds(samples: list[Sample], folder: Path, wanted: list[int]) -> list[Fold]:
    """Divide rooms into folds, as new_rooms.py does, and write a folder of training images for each.

    A fold is left out if its training images lack a label.
    """
    labels = sorted({sample.label for sample in samples})
    rooms = sorted({sample.session for sample in samples})
    folds = []
    for number in wanted:
        test = [sample for sample in samples if rooms.index(sample.session) % NUM_FOLDS == number]
        train = [sample for sample in samples if rooms.index(sample.session) % NUM_FOLDS != number]
        if {sample.label for sample in train} != set(labels):
            continue
        own = folder / f"fold{number}"
        shutil.rmtree(own, ignore_errors=True)
        for sample in train:
            (own / sample.label).mkdir(parents=True, exist_ok=True)
            (own / sample.label / sample.path.name).symlink_to(sample.path.resolve())
        folds.append(Fold(number, own, test, labels, len(train)))
    return folds


def _draw_rooms(build: Path, quick: bool) -> Path:
    """Draw every label in every room, once."""
    num_rooms, num_images = (NUM_QUICK_ROOMS, QUICK_IMAGES_PER_ROOM) if quick else (NUM_ROOMS, IMAGES_PER_ROOM)
    folder = build / f"rooms_{FIRST_ROOM}_{num_rooms}x{num_images}"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        for label in LABELS:
            (unfinished / label).mkdir(parents=True)
            for room in range(FIRST_ROOM, FIRST_ROOM + num_rooms):
                for number, image in enumerate(render(label, room, EVERY * num_images)[::EVERY]):
                    _write(unfinished / label / f"room{room}_{number:04}.jpg", image)
        unfinished.rename(folder)
    return folder


def write_clip(build: Path) -> tuple[Path, Path]:
    """Write a clip of 640x480 pixels from the synthetic camera, and one of its frames. Returns both files."""
    clip, image = build / "clip.avi", build / "frame.jpg"
    frames = render("thumbs_up", 101, CLIP_IMAGES)
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 30, (640, 480))
    for frame in frames:
        writer.write(frame)
    writer.release()
    _write(image, frames[0])
    return clip, image


def _write(path: Path, image: object) -> None:
    if not cv2.imwrite(str(path), image):
        raise UserError(f"can't write {path}")
