"""A heat map over a picture."""

from __future__ import annotations

import cv2
import numpy as np


def draw_heat_map(picture: np.ndarray, heat: np.ndarray) -> None:
    """Lay a heat map over a picture, uint8 [H, W, 3] BGR, which is changed: red speaks most, untouched nothing."""
    heat = cv2.resize(heat, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colors = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    share = (0.6 * heat)[..., None]
    picture[:] = (picture * (1 - share) + colors * share).astype(np.uint8)
