"""The capture window: what its keys do, and what it shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import read_items
from teachcam.collect.quality import BLURRED, exposure_fault, gray, sharpness
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.window import put_text
from teachcam.errors import DatasetError
from teachcam.preprocessing import resize

HELP = (
    "SPACE   start and stop recording",
    "r       record while it is held",
    "s       one single shot",
    "1-9     switch to that label",
    "u       undo the last recording or shot",
    "m       show what the model will see",
    "h       this help",
    "q       quit",
)
RED, GREEN, YELLOW = (60, 60, 255), (90, 220, 90), (60, 220, 255)
# Seconds that `r` counts as held: a keyboard waits half a second or more before a held key repeats, then little.
HELD_FIRST, HELD_AGAIN = 0.9, 0.3


class Viewfinder:
    """Turns keys into recording, and draws the camera's picture with all that is to know while recording."""

    def __init__(self, camera: Camera, recorder: Recorder, labels: list[str], count: int | None = None):
        """Show `labels`, in the order of their keys; `count` ends each recording after so many frames."""
        self._camera, self._recorder, self._labels, self._count = camera, recorder, labels, count
        self._before, self._sessions_before = count_on_disk(recorder.data)
        self._held_until: float | None = None
        self._sharpest = 0.0
        self._help = self._model_view = False
        self._message = ""

    def press(self, key: str, frame: Frame | None, now: float) -> None:
        """Do what a key stands for; `now` in seconds. Called with '' too, whenever no key was pressed."""
        recorder = self._recorder
        recorder.check()
        if self._held_until is not None and now > self._held_until and key != "r":
            self._stop()
        if recorder.recording and recorder.done:
            self._stop()
        if key == " ":
            self._stop() if recorder.recording else self._start()
        elif key == "r":
            if not recorder.recording:
                self._start()
                self._held_until = now + HELD_FIRST
            elif self._held_until is not None:
                self._held_until = max(self._held_until, now + HELD_AGAIN)
        elif key == "s" and frame is not None:
            recorder.shoot(frame)
            self._message = "one shot"
        elif key in ("u", "\b"):
            if recorder.recording:
                self._stop()
            undone = recorder.undo()
            self._message = f"took back {undone} frames" if undone else "nothing to take back"
        elif key.isdecimal() and 0 < int(key) <= len(self._labels):
            if recorder.recording:
                self._stop()
            recorder.switch(self._labels[int(key) - 1])
            self._message = ""
        elif key == "h":
            self._help = not self._help
        elif key == "m":
            self._model_view = not self._model_view

    def _start(self) -> None:
        self._recorder.start(self._count)
        self._message = ""

    def _stop(self) -> None:
        self._held_until = None
        session = self._recorder.session
        self._recorder.stop()
        if session is not None:
            self._message = f"recorded session {session.id}"

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of an image, uint8 [H, W, 3] BGR, with everything on it."""
        picture = image.copy()
        recorder = self._recorder
        put_text(
            picture, f"REC {recorder.label}" if recorder.recording else f"{recorder.label}   SPACE records, h helps"
        )
        line = 1
        for text in self._hints(image):
            put_text(picture, text, line, YELLOW)
            line += 1
        if recorder.overrun:
            put_text(picture, f"the disk is too slow: {recorder.overrun} frames lost", line, RED)
        if self._message:
            put_text(picture, self._message, -len(self._labels) - 1)
        for index, label in enumerate(self._labels):
            count = self._before[label] + recorder.saved[label]
            sessions = self._sessions_before[label] + recorder.sessions[label]
            text = f"{index + 1} {label}: {count} frames, {sessions} session{'s' * (sessions != 1)}"
            put_text(picture, text, index - len(self._labels), GREEN if label == recorder.label else (255, 255, 255))
        if self._model_view:
            _inset(picture, resize(image, (224, 224)))
        if self._help:
            for index, text in enumerate(HELP):
                put_text(picture, text, index + 2)
        if recorder.recording:
            edge = max(3, picture.shape[0] // 90)
            cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), RED, edge)
            cv2.circle(picture, (picture.shape[1] - 5 * edge, 5 * edge), 3 * edge, RED, -1, cv2.LINE_AA)
        return picture

    def _hints(self, image: np.ndarray) -> list[str]:
        """Say what is wrong with the picture now. Blur shows against the sharpest of the last seconds."""
        if self._camera.lost:
            return ["camera lost, opening it again"]
        small = gray(image)
        sharp = sharpness(small)
        self._sharpest = max(sharp, 0.99 * self._sharpest)
        blurred = "blurred: hold still" if sharp < BLURRED * self._sharpest else ""
        return [hint for hint in (exposure_fault(small), blurred) if hint]


def count_on_disk(data: Path) -> tuple[Counter, Counter]:
    """Count the frames and the sessions of each label that are there already."""
    try:
        items = read_items(data)
    except DatasetError:
        return Counter(), Counter()
    sessions = {(item.label, item.session) for item in items}
    return Counter(item.label for item in items), Counter(label for label, _ in sessions)


def _inset(picture: np.ndarray, small: np.ndarray) -> None:
    """Put a small picture into the lower right corner, framed, if there is room for it."""
    height, width = small.shape[:2]
    if picture.shape[0] > height + 8 and picture.shape[1] > width + 8:
        picture[-height - 6 : -2, -width - 6 : -2] = 255
        picture[-height - 4 : -4, -width - 4 : -4] = small
