"""Augmentation, for training alone: what another room, another person and another camera would change.

Position, distance, tilt and shape of what is shown; light, colour and contrast; focus and noise; something in the way.
No flip: a label may be about a side, and nobody was asked.
"""

from __future__ import annotations

import cv2
import numpy as np

BORDERS = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)


def augment(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a changed copy of a frame, uint8 [H, W, 3] BGR, of the same shape. About 1 ms for 224x224."""
    frame = _move(frame, rng)
    if rng.random() < 0.8:
        frame = _relight(frame, rng)
    if rng.random() < 0.25:
        frame = cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.5, 2) * frame.shape[0] / 224)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(2, 10), frame.shape)
        frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _cover(frame, rng)
    return frame


def _move(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, scale, stretch and tilt; what comes into view is mirrored, drawn out, or of one colour."""
    height, width = frame.shape[:2]
    scale, stretch, tilt = rng.uniform(0.75, 1.25), np.exp(rng.uniform(-0.1, 0.1)), rng.uniform(-15, 15)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, scale)
    matrix[0, :2] *= stretch
    matrix[1, :2] /= stretch
    middle = np.array([width / 2, height / 2])
    target = middle + rng.uniform(-0.15, 0.15, 2) * (width, height)
    matrix[:, 2] = target - matrix[:, :2] @ middle
    return cv2.warpAffine(
        frame,
        matrix,
        (width, height),
        borderMode=BORDERS[rng.integers(len(BORDERS))],
        borderValue=rng.integers(0, 256, 3).tolist(),
    )


def _relight(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change tint, contrast, brightness and gamma; at times there is no colour at all."""
    if rng.random() < 0.15:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    levels = np.arange(256)[:, None] * rng.uniform(0.75, 1.25, 3)  # [level, channel]
    mean = np.array(cv2.mean(frame)[:3])
    levels = (levels - mean) * rng.uniform(0.6, 1.4) + mean * rng.uniform(0.6, 1.4)
    levels = np.clip(levels, 0, 255)
    if rng.random() < 0.3:
        levels = 255 * (levels / 255) ** np.exp(rng.uniform(-0.5, 0.5))
    return cv2.LUT(frame, levels.astype(np.uint8)[None])


def _cover(frame: np.ndarray, rng: np.random.Generator) -> None:
    """Put a rectangle of one colour over a part of the frame."""
    height, width = frame.shape[:2]
    h, w = int(height * rng.uniform(0.12, 0.33)), int(width * rng.uniform(0.12, 0.33))
    y, x = rng.integers(0, height - h), rng.integers(0, width - w)
    frame[y : y + h, x : x + w] = rng.integers(0, 256, 3)
