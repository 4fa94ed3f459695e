"""Show where the model looks: hide a part of the image and measure how much its confidence drops.

This is occlusion sensitivity (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014).
It needs only the model's probabilities, so it works for every model. It runs the model 37 times for one image.
"""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.live.prediction import Model
from teachcam.preprocessing import preprocess

GRID_SIZE = 6  # cells across and down
WINDOW_SIZE = 3  # cells across and down that are hidden at once
MIN_DROP = 0.5  # of the log odds; a map whose largest drop is smaller is only noise


def heat_map(classifier: Model, image: np.ndarray) -> np.ndarray:
    """Compute how much each part of an image supports the likeliest label.

    Args:
        classifier: Used by this call, so it must belong to the calling thread.
        image: uint8 [H, W, 3], BGR.

    Returns:
        float32 [6, 6], from 0 to 1. All 0 if no part matters.
    """
    model_input = preprocess(image, classifier.contract)
    height, width = model_input.shape[:2]
    blurred = cv2.blur(model_input, (width // 3, height // 3))  # a blur adds no edges, as a flat color would
    probabilities = classifier.predict_probabilities(model_input)
    likeliest = int(probabilities.argmax())
    visible = _log_odds(probabilities[likeliest])
    drops = np.zeros((GRID_SIZE, GRID_SIZE), np.float32)
    rows, columns = (np.linspace(0, side, GRID_SIZE + 1).round().astype(int) for side in (height, width))
    for y in range(GRID_SIZE):
        for x in range(GRID_SIZE):
            top, left = rows[max(0, y - WINDOW_SIZE // 2)], columns[max(0, x - WINDOW_SIZE // 2)]
            bottom = rows[min(GRID_SIZE, y + WINDOW_SIZE // 2 + 1)]
            right = columns[min(GRID_SIZE, x + WINDOW_SIZE // 2 + 1)]
            occluded = model_input.copy()
            occluded[top:bottom, left:right] = blurred[top:bottom, left:right]
            drops[y, x] = visible - _log_odds(classifier.predict_probabilities(occluded)[likeliest])
    drops = drops.clip(0)
    return drops / drops.max() if drops.max() > MIN_DROP else np.zeros_like(drops)


def _log_odds(probability: float) -> float:
    probability = min(max(float(probability), 1e-6), 1 - 1e-6)
    return float(np.log(probability / (1 - probability)))
