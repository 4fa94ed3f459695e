"""Draw crowded images that stand in for backgrounds nobody recorded."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from teachcam.train.augment.params import (
    CLUTTERS,
)


@cache
def clutters() -> list[np.ndarray]:
    """Return the pictures of clutter, the same in every run: over a second to draw, so only once and when needed."""
    rng = np.random.default_rng(0)
    return [clutter(rng) for _ in range(CLUTTERS)]


def clutter(rng: np.random.Generator, side: int = 224) -> np.ndarray:
    """Draw a crowded picture, uint8 [side, side, 3]: shapes of all sizes over one another, stripes, light and shade."""
    picture = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for _ in range(rng.integers(15, 90)):
        radius = np.exp(rng.uniform(np.log(5), np.log(70)))
        color = rng.integers(0, 256, 3).astype(float)
        color = tuple(color.mean() + (color - color.mean()) * rng.random())
        x, y = (int(value) for value in rng.integers(0, side, 2))
        angle, breadth = rng.uniform(0, 180), radius * rng.uniform(0.15, 1)
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(picture, (x, y), (int(breadth), int(radius)), angle, 0, 360, color, -1, cv2.LINE_AA)
            continue
        if kind == 1:
            corners = np.array([x, y]) + rng.normal(0, radius, (rng.integers(3, 7), 2))
        else:
            reach = (2 * breadth, 2 * radius) if kind == 2 else (3 * radius, 3 * radius)
            corners = cv2.boxPoints(((x, y), reach, angle))
        corners = corners.astype(np.int32)
        if kind < 3:
            cv2.fillPoly(picture, [corners], color, cv2.LINE_AA)
        else:  # stripes, as of a curtain
            inside = cv2.fillPoly(np.zeros((side, side), np.uint8), [corners], 1)
            across = columns * np.cos(np.deg2rad(angle)) + rows * np.sin(np.deg2rad(angle))
            picture[(inside > 0) & (across // rng.integers(3, 16) % 2 > 0)] = color
    texture = cv2.resize(rng.normal(0, 25 * rng.random(), (side // 4, side // 4, 3)), (side, side))
    light = cv2.resize(rng.uniform(0.45, 1.4, (3, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    picture = np.clip((picture + texture) * light[..., None], 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 3))
