"""What is drawn over the picture: the answer, how sure, how fast, how old."""

from __future__ import annotations

import numpy as np

from collect.window import put_text
from live.classifier import Answer


def annotate(image: np.ndarray, answer: Answer, fps: float, age: float) -> np.ndarray:
    """Return a copy of an image, uint8 [H, W, 3] BGR, with the answer on it; `age` in seconds."""
    picture = image.copy()
    put_text(picture, f"{answer.label}  {100 * answer.confidence:.0f} %")
    put_text(picture, f"{fps:.0f} FPS, {1000 * age:.0f} ms old", line=1)
    return picture
