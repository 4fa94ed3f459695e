"""Where the model looks: hide a part of the picture and see how much the answer suffers (occlusion sensitivity).

It needs nothing of the network but its answers, so it works for every model; it costs as many runs as it has places.
"""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess

PLACES = 6  # across and down
HIDDEN = 3  # a window of so many places is hidden at once
NEGLIGIBLE = 0.5  # of the log odds: a map whose strongest place does less shows nothing


def heat_map(classifier: Classifier, image: np.ndarray) -> np.ndarray:
    """Return how much each place speaks for the likeliest label, float32 [6, 6], 0 to 1; all 0 where none does.

    `image` is uint8 [H, W, 3], BGR. Uses the classifier, so the thread that calls this needs one of its own.
    """
    frame = preprocess(image, classifier.contract)
    hidden = cv2.blur(frame, (frame.shape[1] // 3, frame.shape[0] // 3))  # as unlike anything as its surroundings allow
    probabilities = classifier.probabilities(frame)
    best = int(probabilities.argmax())
    whole = _log_odds(probabilities[best])
    lost = np.zeros((PLACES, PLACES), np.float32)
    rows, columns = (np.linspace(0, side, PLACES + 1).round().astype(int) for side in frame.shape[:2])
    for y in range(PLACES):
        for x in range(PLACES):
            top, left = rows[max(0, y - HIDDEN // 2)], columns[max(0, x - HIDDEN // 2)]
            bottom, right = rows[min(PLACES, y + HIDDEN // 2 + 1)], columns[min(PLACES, x + HIDDEN // 2 + 1)]
            covered = frame.copy()
            covered[top:bottom, left:right] = hidden[top:bottom, left:right]
            lost[y, x] = whole - _log_odds(classifier.probabilities(covered)[best])
    lost = lost.clip(0)
    return lost / lost.max() if lost.max() > NEGLIGIBLE else np.zeros_like(lost)


def _log_odds(probability: float) -> float:
    probability = min(max(float(probability), 1e-6), 1 - 1e-6)
    return float(np.log(probability / (1 - probability)))
