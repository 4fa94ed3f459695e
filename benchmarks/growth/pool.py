"""Make datasets of any size from drawn images: the images once, as files, and datasets as hard links to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import cv2

from teachcam.collect.dataset import JPEG_QUALITY
from teachcam.collect.hands import LABELS
from teachcam.collect.synthetic import render
from teachcam.images import encode_jpeg

FOLDER = Path(__file__).resolve().parents[2] / "build/growth"
SESSION, ROOM = 25, 25 * len(LABELS)  # images of a session, and of a room, which has a session for each label
WIDTH, HEIGHT = 320, 240


def make_pool(num_images: int) -> None:
    """Draw the images that are missing. Takes 3 ms an image on two cores, and 14 KB of disk."""
    missing = [room for room in range(-(-num_images // ROOM)) if not _path((room + 1) * ROOM - 1).is_file()]
    with ProcessPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(_draw_room, missing, chunksize=4), 1):
            if done % 100 == 0:
                print(f"{done * ROOM} of {len(missing) * ROOM} images drawn", flush=True)


def _draw_room(room: int) -> None:
    cv2.setNumThreads(1)
    for number, label in enumerate(LABELS):
        for index, image in enumerate(render(label, room, SESSION, WIDTH, HEIGHT), room * ROOM + number * SESSION):
            _path(index).parent.mkdir(parents=True, exist_ok=True)
            _path(index).write_bytes(encode_jpeg(image, JPEG_QUALITY))


def _path(index: int) -> Path:
    return FOLDER / "pool" / f"{index // 1000:03d}" / f"{index:06d}.jpg"


def by_images(num_images: int) -> Path:
    """Return a dataset of so many images in rooms of 100, which have a session of 25 images for each of four labels."""

    def place(index: int) -> tuple[str, str]:
        room, label = index // ROOM, index % ROOM // SESSION
        began = datetime(2026, 1, 1) + timedelta(minutes=20 * room + label)  # the sessions of a room in a row
        return LABELS[label], f"{began:%Y%m%dT%H%M%S}000-{room:06x}"

    return _link(f"images-{num_images}", num_images, place)


def by_labels(num_labels: int, num_images: int) -> Path:
    """Return a dataset of so many labels. In each room every label that fits there has as many images as any other."""
    return _link(
        f"labels-{num_labels}-{num_images}",
        num_images,
        lambda index: (f"label{index % num_labels:04d}", f"room{index // ROOM:04d}"),
    )


def by_sessions(num_sessions: int, num_images: int) -> Path:
    """Return a dataset of so many sessions, each with one label; with fewer sessions than labels, each with all."""

    def place(index: int) -> tuple[str, str]:
        session = index * num_sessions // num_images
        label = session if num_sessions >= len(LABELS) else index
        return LABELS[label % len(LABELS)], f"session{session:04d}"

    return _link(f"sessions-{num_sessions}-{num_images}", num_images, place)


def _link(name: str, num_images: int, place: Callable[[int], tuple[str, str]]) -> Path:
    """Make a dataset of the first images of the pool. `place` gives the label and the session of an image."""
    make_pool(num_images)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    for index in range(num_images):
        label, session = place(index)
        (folder / label).mkdir(parents=True, exist_ok=True)
        os.link(_path(index), folder / label / f"{session}_{index:06d}.jpg")
    return folder
