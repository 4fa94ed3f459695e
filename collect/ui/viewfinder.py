"""The capture window: what its keys do, and what it shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.camera import Camera, Frame
from teachcam.collect.dataset import list_samples
from teachcam.collect.quality import CameraHints
from teachcam.collect.recorder import Recorder
from teachcam.drawing import GREEN, RED, WHITE, YELLOW, put_text
from teachcam.errors import DatasetError
from teachcam.preprocessing import resize

HELP = (
    "SPACE   start or stop recording",
    "r       record while you hold it down",
    "s       save one image",
    "1-9     choose the label to record",
    "u       undo the last recording or image",
    "m       show what the model will see",
    "h       show or hide this help",
    "q       quit",
)
# Seconds without a repeat of `r` after which it counts as released. A held key repeats after about half a second for
# the first time, and then about every 30 ms.
FIRST_REPEAT, NEXT_REPEAT = 0.9, 0.3
MODEL_VIEW_SIZE = (224, 224)  # pixels: the usual input size; the model itself is chosen later, in training


class Viewfinder:
    """Turns keys into recordings, and draws the camera's image with the state of the recording."""

    def __init__(self, camera: Camera, recorder: Recorder, labels: list[str], max_frames: int | None = None):
        """Create a viewfinder.

        Args:
            camera: Where the images come from.
            recorder: Records them.
            labels: In the order of their keys, from 1.
            max_frames: End each recording after this many frames. None for no limit.
        """
        self._camera, self._recorder, self._labels, self._max_frames = camera, recorder, labels, max_frames
        self._frames_before, self._sessions_before = count_on_disk(recorder.data)
        self._held_until: float | None = None  # seconds: when a recording by `r` ends; None for other recordings
        self._hints = CameraHints()
        self._show_help = self._show_model_view = False
        self._message = ""

    def press(self, key: str, frame: Frame | None, now: float) -> None:
        """Act on a key, and end a recording that is complete. Call this after every image.

        Args:
            key: As Window.show returns it: "" if no key was pressed.
            frame: The frame that is shown.
            now: A monotonic time, in seconds.

        Raises:
            DatasetError: Writing failed, for example because the disk is full.
        """
        recorder = self._recorder
        recorder.check_writer()
        released = self._held_until is not None and now > self._held_until and key != "r"
        if released or (recorder.recording and recorder.done):
            self._stop()
        if key == " ":
            self._stop() if recorder.recording else self._start()
        elif key == "r":
            if not recorder.recording:
                self._start()
                self._held_until = now + FIRST_REPEAT
            elif self._held_until is not None:
                self._held_until = max(self._held_until, now + NEXT_REPEAT)
        elif key == "s" and frame is not None:
            recorder.snapshot(frame)
            self._message = "saved one image"
        elif key in ("u", "\b"):
            if recorder.recording:
                self._stop()
            self._message = describe_undo(recorder.undo())
        elif key.isdecimal() and 0 < int(key) <= len(self._labels):
            if recorder.recording:
                self._stop()
            recorder.set_label(self._labels[int(key) - 1])
            self._message = ""
        elif key == "h":
            self._show_help = not self._show_help
        elif key == "m":
            self._show_model_view = not self._show_model_view

    def _start(self) -> None:
        self._recorder.start(self._max_frames)
        self._message = ""

    def _stop(self) -> None:
        self._held_until = None
        session = self._recorder.session
        self._recorder.stop()
        if session is not None:
            self._message = f"recorded session {session.id}"

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Draw the window over an image of the camera.

        Args:
            image: The camera's image, uint8 [H, W, 3] BGR. It is not changed.

        Returns:
            uint8 [H, W, 3], BGR.
        """
        drawn = image.copy()
        recorder = self._recorder
        title = f"REC {recorder.label}" if recorder.recording else f"{recorder.label}   SPACE records, h shows help"
        put_text(drawn, title)
        hints = ["camera lost, reconnecting"] if self._camera.reconnecting else self._hints(image)
        lines = [(text, YELLOW) for text in hints]
        if recorder.dropped:
            lines.append((f"the disk is too slow: {recorder.dropped} frames lost", RED))
        for line, (text, color) in enumerate(lines, 1):
            put_text(drawn, text, line, color)
        if self._message:
            put_text(drawn, self._message, -len(self._labels) - 1)
        for index, label in enumerate(self._labels):
            num_frames = self._frames_before[label] + recorder.saved[label]
            num_sessions = self._sessions_before[label] + recorder.sessions[label]
            text = f"{index + 1} {label}: {num_frames} frames, {num_sessions} session{'s' * (num_sessions != 1)}"
            put_text(drawn, text, index - len(self._labels), GREEN if label == recorder.label else WHITE)
        if self._show_model_view:
            _draw_inset(drawn, resize(image, MODEL_VIEW_SIZE))
        if self._show_help:
            for line, text in enumerate(HELP, 2):
                put_text(drawn, text, line)
        if recorder.recording:
            _draw_recording_mark(drawn)
        return drawn


def count_on_disk(data: Path) -> tuple[Counter[str], Counter[str]]:
    """Count the frames and the sessions of each label in a dataset, which may be missing."""
    try:
        samples = list_samples(data)
    except DatasetError:
        return Counter(), Counter()
    sessions = {(sample.label, sample.session) for sample in samples}
    return Counter(sample.label for sample in samples), Counter(label for label, _ in sessions)


def describe_undo(num_frames: int) -> str:
    """Return a message about what Recorder.undo did: how many frames it moved."""
    if not num_frames:
        return "nothing to undo"
    return f"undone: moved {num_frames} frame{'s' * (num_frames != 1)} to .rejected"


def _draw_inset(image: np.ndarray, small: np.ndarray) -> None:
    """Draw a small image with a frame into the lower right corner, if it fits."""
    height, width = small.shape[:2]
    if image.shape[0] > height + 8 and image.shape[1] > width + 8:
        image[-height - 6 : -2, -width - 6 : -2] = 255
        image[-height - 4 : -4, -width - 4 : -4] = small


def _draw_recording_mark(image: np.ndarray) -> None:
    """Draw a red frame around an image, and a red dot into its upper right corner."""
    edge = max(3, image.shape[0] // 90)
    cv2.rectangle(image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), RED, edge)
    cv2.circle(image, (image.shape[1] - 5 * edge, 5 * edge), 3 * edge, RED, -1, cv2.LINE_AA)
