"""Corrections from the live loop: a frame and the label that it has in truth, straight into the dataset."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import Session, check_label


class CorrectionWriter:
    """Saves frames under labels; those of one label and one run of the program are a session. For any thread."""

    def __init__(self, data: Path | str, **known: object):
        """Save into the dataset `data`; `known` (camera, note) goes into each session's line."""
        self.data = Path(data)
        self.saved: Counter[str] = Counter()
        self._known = known
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray, label: str) -> int:
        """Save an image, uint8 [H, W, 3] BGR, and return how many there are now. Raises DatasetError (a full disk)."""
        with self._lock:
            if label not in self._sessions:
                self._sessions[label] = Session(self.data, check_label(label), **self._known)
            self._sessions[label].save(image)
            self.saved[label] += 1
            return self.saved[label]
