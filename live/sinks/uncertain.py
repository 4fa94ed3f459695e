"""Save the frames whose prediction is uncertain: labeling these improves the next model most."""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import JPEG_QUALITY, check_label, new_session_id
from teachcam.collect.inspection import NEAR_DUPLICATE
from teachcam.collect.quality import signature
from teachcam.errors import UserError
from teachcam.files import write_atomic
from teachcam.images import encode_jpeg
from teachcam.live.prediction import UNKNOWN
from teachcam.live.sinks.base import FrameResult, ThreadedSink

CERTAIN_MARGIN = 0.5  # a prediction is certain if its probability exceeds the second one by this much
INTERVAL = 1.0  # seconds between two saved frames
MAX_SAVED = 500  # frames per run, so that an unattended device does not fill its disk
NUM_COMPARED = 50  # a frame is compared with this many that were saved before it, to leave out near duplicates

logger = logging.getLogger(__name__)


class UncertainFrames(ThreadedSink):
    """Saves frames as `folder/<predicted label>/<session>_<n>.jpg`; `collect/capture.py --review folder` sorts them.

    A frame is uncertain if the model answers "unknown", or if the two highest probabilities lie close together
    (margin sampling, Scheffer 2001).

    Args:
        folder: Where to save. It is created.
        live: True for a live camera, whose frames are dropped when the disk is too slow.

    Raises:
        UserError: The folder can't be created or written.
    """

    def __init__(self, folder: Path, live: bool):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--save-uncertain {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise UserError(f"--save-uncertain {folder}: no permission to write there, give another folder")
        self.saved = 0
        self._folder, self._session = folder, new_session_id()
        self._next_time = float("-inf")  # seconds, of Frame.time
        self._signatures: deque[np.ndarray] = deque(maxlen=NUM_COMPARED)
        super().__init__(live, 2)

    def _name(self) -> str:
        return f"--save-uncertain {self._folder}"

    def _prepare(self, result: FrameResult) -> tuple[np.ndarray, str] | None:
        if result.frame.file is None and result.frame.time < self._next_time:
            return None
        likeliest = sorted(result.raw_prediction.probabilities.items(), key=lambda item: -item[1])
        margin = likeliest[0][1] - (likeliest[1][1] if len(likeliest) > 1 else 0.0)
        if result.raw_prediction.label != UNKNOWN and margin >= CERTAIN_MARGIN:
            return None
        self._next_time = result.frame.time + INTERVAL
        return result.frame.image, likeliest[0][0]

    def _write(self, entry: tuple[np.ndarray, str]) -> None:
        image, predicted = entry
        new = signature(image).astype(int)
        if self.saved >= MAX_SAVED or any(np.abs(new - saved).max() <= NEAR_DUPLICATE for saved in self._signatures):
            return
        path = self._folder / check_label(predicted, [predicted]) / f"{self._session}_{self.saved:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, encode_jpeg(image, JPEG_QUALITY))
        self._signatures.append(new)
        self.saved += 1

    def _finish(self) -> None:
        if self.saved:
            full = " (the limit of one run)" if self.saved >= MAX_SAVED else ""
            frames = "1 uncertain frame" if self.saved == 1 else f"{self.saved} uncertain frames"
            them = "it" if self.saved == 1 else "them"
            logger.info(f"saved {frames}{full}; label {them} with teachcam capture --review {self._folder}")
