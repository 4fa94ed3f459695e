"""Save corrections from the live loop: an image and its true label go straight into the dataset."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import Session
from teachcam.files import expand


class CorrectionWriter:
    """Saves images under their true labels. All images of one label in one run of the program are one session.

    Any thread may call it.

    Attributes:
        data: The dataset's folder.
        saved: How many images were saved for each label.
    """

    def __init__(self, data: Path | str, **metadata: object):
        """Create a writer. It writes nothing before the first correction.

        Args:
            data: The dataset's folder.
            metadata: Stored with each session, for example `camera` and `note`.
        """
        self.data = expand(data)
        self.saved: Counter[str] = Counter()
        self._metadata = metadata
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray, label: str) -> int:
        """Save one image.

        Args:
            image: uint8 [H, W, 3], BGR.
            label: What the image shows.

        Returns:
            How many images of this label were saved so far.

        Raises:
            DatasetError: The image could not be written (for example a full disk), or the label can't name a folder.
        """
        with self._lock:
            if label not in self._sessions:
                self._sessions[label] = Session(self.data, label, **self._metadata)
            self._sessions[label].save(image)
            self.saved[label] += 1
            return self.saved[label]
