"""Draw a prediction on an image: the label, a bar for each probability, and a status line."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.drawing import GREEN, WHITE, Color, put_text
from teachcam.live.prediction import Prediction

MAX_BARS = 9  # as many as there are keys, 1 to 9
MIN_HEIGHT = 240  # pixels: smaller images are enlarged, or the text would be unreadable


def annotate(image: np.ndarray, prediction: Prediction, status: str) -> np.ndarray:
    """Return a copy of an image with a prediction drawn on it.

    Args:
        image: uint8 [H, W, 3], BGR.
        prediction: If it has more than nine labels, only the nine most probable get a bar.
        status: The second line of text, ASCII.

    Returns:
        uint8 [k * H, k * W, 3], BGR. k is 1, or what makes a small image at least 240 pixels high.
    """
    scale = -(-MIN_HEIGHT // image.shape[0])  # rounded up
    annotated = image.repeat(scale, 0).repeat(scale, 1) if scale > 1 else image.copy()
    put_text(annotated, f"{prediction.label}  {100 * prediction.confidence:.0f} %")
    put_text(annotated, status, line=1)
    bars = list(prediction.probabilities.items())
    if len(bars) > MAX_BARS:
        bars = sorted(bars, key=lambda bar: -bar[1])[:MAX_BARS]
    for index, (label, probability) in enumerate(bars):
        _draw_bar(annotated, index - len(bars), label, probability, GREEN if label == prediction.label else WHITE)
    return annotated


def _draw_bar(image: np.ndarray, line: int, label: str, probability: float, color: Color) -> None:
    """Draw a bar with its label. Lines count from the bottom, from -1."""
    height, width = image.shape[:2]
    step, margin = round(height / 480 * 24), round(height / 480 * 8)
    top, left, length = height - margin + line * step, margin, width // 4
    bottom, right = top + step - 4, left + length
    image[top:bottom, left:right] //= 3
    image[top:bottom, left : left + round(probability * length)] = color
    scale = height / 480 * 0.5
    thickness = max(1, round(2 * scale))
    (text_width, _), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    # A darkened strip keeps the label readable on any background. An outline would not: OpenCV 5 draws thick letters
    # wider, so the outline and the letters do not lie on each other.
    image[top:bottom, right + margin // 2 : right + text_width + 3 * margin // 2] //= 3
    position = (right + margin, top + round(0.65 * step))
    cv2.putText(image, label, position, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
