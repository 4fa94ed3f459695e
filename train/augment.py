"""Augmentation, for training alone: the same scene a little closer, to the side, turned, brighter or duller.

No flip: a label may be about a side, and nobody was asked.
"""

from __future__ import annotations

import cv2
import numpy as np


def augment(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a changed copy of a frame, uint8 [H, W, 3] BGR, of the same shape."""
    height, width = frame.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), rng.uniform(0.85, 1.2))
    move[:, 2] += rng.uniform(-0.1, 0.1, 2) * (width, height)
    frame = cv2.warpAffine(frame, move, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    contrast, brightness = rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
    tint = rng.uniform(0.9, 1.1, 3)
    levels = np.arange(256)[:, None] * tint  # [level, channel]
    table = np.clip((levels - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8)
    return cv2.LUT(frame, table[None])
