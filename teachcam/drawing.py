"""Draw on images: lines of text, heat maps, and the colors that every window shares.

All functions change the image that they get. Images are uint8 [H, W, 3], BGR; colors are (blue, green, red).
"""

from __future__ import annotations

from typing import Tuple

import cv2
import numpy as np

Color = Tuple[int, int, int]

WHITE, RED, GREEN, YELLOW = (255, 255, 255), (60, 60, 255), (90, 220, 90), (60, 220, 255)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FULL_HEIGHT = 480  # pixels: text keeps the proportion that it has on an image of this height


def put_text(image: np.ndarray, text: str, line: int = 0, color: Color = WHITE) -> None:
    """Write one line of text on a darkened strip, in a size that fits the image.

    Args:
        image: uint8 [H, W, 3], BGR. It is changed.
        text: ASCII, all that OpenCV's fonts can draw.
        line: Counts from the top, from 0. Negative lines count from the bottom, from -1.
        color: Color of the letters, BGR.
    """
    scale = image.shape[0] / _FULL_HEIGHT * 0.7
    thickness = max(1, round(1.6 * scale))
    height, margin = round(34 * scale), round(8 * scale)
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    top = margin + line * height if line >= 0 else image.shape[0] - margin + line * height
    strip = image[top : top + height, margin : width + 3 * margin]
    strip //= 3
    cv2.putText(image, text, (2 * margin, top + round(24 * scale)), _FONT, scale, color, thickness, cv2.LINE_AA)


def draw_heat_map(image: np.ndarray, heat: np.ndarray) -> None:
    """Blend a heat map over an image: red where it is 1, unchanged where it is 0.

    Args:
        image: uint8 [H, W, 3], BGR. It is changed.
        heat: float32 [h, w] of any size, 0 to 1.
    """
    heat = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colors = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    opacity = (0.6 * heat)[..., None]
    image[:] = (image * (1 - opacity) + colors * opacity).astype(np.uint8)
