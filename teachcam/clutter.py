"""Draw cluttered images that stand in for backgrounds nobody recorded."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Iterator

import cv2
import numpy as np

NUM_CLUTTER_IMAGES = 64

_lock = Lock()


def clutter_images() -> list[np.ndarray]:
    """Return NUM_CLUTTER_IMAGES clutter images, the same in every run. The first call takes over a second."""
    with _lock:  # else each of 16 threads that augment for a GPU draws all of them, one after the other
        return _draw_all()


@lru_cache(maxsize=None)
def _draw_all() -> list[np.ndarray]:
    return list(draw_clutter_images())


def draw_clutter_images() -> Iterator[np.ndarray]:
    """Draw the images of `clutter_images` one after another, for whoever needs them once or may have to stop."""
    rng = np.random.default_rng(0)
    return (draw_clutter(rng) for _ in range(NUM_CLUTTER_IMAGES))


def draw_clutter(rng: np.random.Generator, size: int = 224) -> np.ndarray:
    """Draw overlapping shapes of all sizes, stripes, texture and uneven light.

    Args:
        rng: Source of random numbers.
        size: Width and height in pixels.

    Returns:
        uint8 [size, size, 3], BGR.
    """
    image = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for _ in range(rng.integers(15, 90)):
        radius = np.exp(rng.uniform(np.log(5), np.log(70)))
        vivid = rng.integers(0, 256, 3).astype(float)
        color = (vivid.mean() + (vivid - vivid.mean()) * rng.random()).tolist()
        x, y = (int(value) for value in rng.integers(0, size, 2))
        angle, half_width = rng.uniform(0, 180), radius * rng.uniform(0.15, 1)
        shape = rng.integers(4)  # ellipse, polygon, rectangle or stripes
        if shape == 0:
            cv2.ellipse(image, (x, y), (int(half_width), int(radius)), angle, 0, 360, color, -1, cv2.LINE_AA)
            continue
        if shape == 1:
            corners = np.array([x, y]) + rng.normal(0, radius, (rng.integers(3, 7), 2))
        else:
            sides = (2 * half_width, 2 * radius) if shape == 2 else (3 * radius, 3 * radius)
            corners = np.array(cv2.boxPoints(((x, y), sides, angle)), np.float64)
        polygon = corners.astype(np.int32)
        if shape < 3:
            cv2.fillPoly(image, [polygon], color, cv2.LINE_AA)
        else:  # stripes, like a curtain's
            inside = cv2.fillPoly(np.zeros((size, size), np.uint8), [polygon], 1)
            position = columns * np.cos(np.deg2rad(angle)) + rows * np.sin(np.deg2rad(angle))
            image[(inside > 0) & (position // rng.integers(3, 16) % 2 > 0)] = color
    texture = cv2.resize(rng.normal(0, 25 * rng.random(), (size // 4, size // 4, 3)), (size, size))
    light = cv2.resize(rng.uniform(0.45, 1.4, (3, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip((image + texture) * light[..., None], 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 3))
