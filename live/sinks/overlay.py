"""What is drawn over the picture: the answer, a bar for each label, how fast, how old."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.collect.ui.window import put_text
from teachcam.live.prediction import Prediction

MOST_BARS = 9  # as many as there are keys
LEAST = 240  # pixels high: what is smaller is enlarged before it is written on
GREEN, WHITE = (90, 220, 90), (255, 255, 255)


def annotate(image: np.ndarray, answer: Prediction, state: str) -> np.ndarray:
    """Return a copy of an image, uint8 [H, W, 3] BGR, with the answer, a bar for each label and a line of text.

    One of few pixels comes back several times as large, each a square, so that there is room to write.
    """
    times = -(-LEAST // image.shape[0])
    picture = image.repeat(times, 0).repeat(times, 1) if times > 1 else image.copy()
    put_text(picture, f"{answer.label}  {100 * answer.confidence:.0f} %")
    put_text(picture, state, line=1)
    bars = list(answer.probabilities.items())
    if len(bars) > MOST_BARS:
        bars = sorted(bars, key=lambda bar: -bar[1])[:MOST_BARS]
    for index, (label, probability) in enumerate(bars):
        _bar(picture, index - len(bars), label, probability, GREEN if label == answer.label else WHITE)
    return picture


def _bar(picture: np.ndarray, line: int, label: str, probability: float, color: tuple[int, int, int]) -> None:
    """Draw a bar with its label; lines count from the bottom, from -1."""
    height, width = picture.shape[:2]
    step, margin = round(height / 480 * 24), round(height / 480 * 8)
    top, left, length = height - margin + line * step, margin, width // 4
    picture[top : top + step - 4, left : left + length] //= 3
    picture[top : top + step - 4, left : left + round(probability * length)] = color
    scale = height / 480 * 0.5
    where = (left + length + margin, top + round(0.65 * step))
    for tint, thickness in (((0, 0, 0), 3), (color, 1)):  # a dark rim makes it readable on any ground
        thickness = max(thickness, round(2 * thickness * scale))
        cv2.putText(picture, label, where, cv2.FONT_HERSHEY_SIMPLEX, scale, tint, thickness, cv2.LINE_AA)
