"""Keeps the frames that the model was unsure of: the ones it would learn most from."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.dataset import JPEG_QUALITY, check_label, new_session_id
from teachcam.collect.inspection import NEAR_DUPLICATE
from teachcam.collect.quality import signature
from teachcam.errors import UserError
from teachcam.files import write_atomic
from teachcam.live.prediction import UNKNOWN
from teachcam.live.sinks.base import Result, ThreadedSink

SURE = 0.5  # a likeliest label that leads the next by so much is not uncertain
INTERVAL = 1.0  # seconds from one to the next
MOST = 500  # frames of one run: a device that nobody looks after must not fill its disk
COMPARED = 50  # of those kept last, with which a new one is compared


class Uncertain(ThreadedSink):
    """A sink that writes them as `folder/<guess>/<session>_<n>.jpg`, for `collect/capture.py --review folder`."""

    def __init__(self, folder: Path, live: bool):
        """Keep them below `folder`. Raises UserError now if it can't be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--save-uncertain {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise UserError(f"--save-uncertain {folder}: you may not write there, give another folder")
        self.saved = 0
        self._folder, self._session = folder, new_session_id()
        self._due = float("-inf")
        self._signatures: deque[np.ndarray] = deque(maxlen=COMPARED)
        super().__init__(live, 2)

    def _name(self) -> str:
        return f"--save-uncertain {self._folder}"

    def _prepare(self, result: Result) -> tuple[np.ndarray, str] | None:
        if result.frame.time < self._due:
            return None
        likeliest = sorted(result.raw.probabilities.items(), key=lambda item: -item[1])
        lead = likeliest[0][1] - (likeliest[1][1] if len(likeliest) > 1 else 0.0)
        if result.raw.label != UNKNOWN and lead >= SURE:
            return None
        self._due = result.frame.time + INTERVAL
        return result.frame.image, likeliest[0][0]

    def _write(self, entry: tuple[np.ndarray, str]) -> None:
        image, guess = entry
        mine = signature(image).astype(int)
        if self.saved >= MOST or any(np.abs(mine - other).max() <= NEAR_DUPLICATE for other in self._signatures):
            return
        path = self._folder / check_label(guess) / f"{self._session}_{self.saved:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        write_atomic(path, content.tobytes())
        self._signatures.append(mine)
        self.saved += 1

    def _finish(self) -> None:
        if self.saved:
            full = ", which is as many as one run keeps" if self.saved >= MOST else ""
            print(
                f"kept {self.saved} uncertain frames{full}: sort them with "
                f"python collect/capture.py --review {self._folder}",
                file=sys.stderr,
            )
