"""Where answers go: JSON lines, text, an annotated video, a window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from collect.camera import Frame
from collect.cli import UserError
from collect.sources import quiet
from collect.window import Window
from live.classifier import Answer
from live.overlay import annotate


@dataclass
class Result:
    """One frame, its answer, and how long both took. Times in seconds."""

    frame: Frame
    answer: Answer
    latency: float  # from the frame in hand to the answer
    age: float  # from the frame's capture to the answer
    fps: float  # answers a second, lately

    @cached_property
    def picture(self) -> np.ndarray:
        """The annotated image, uint8 [H, W, 3] BGR: drawn once, however many sinks show it. Not to be changed."""
        return annotate(self.frame.image, self.answer, self.fps, self.age)


class JsonLines:
    """One JSON object a line on stdout, for programs."""

    def __call__(self, result: Result) -> bool:
        """Write one line."""
        line = {
            "frame": result.frame.number,
            "label": result.answer.label,
            "confidence": round(result.answer.confidence, 6),
            "probabilities": {label: round(value, 6) for label, value in result.answer.probabilities.items()},
            "latency_ms": round(1000 * result.latency, 3),
            "age_ms": round(1000 * result.age, 3),
        }
        print(json.dumps(line), flush=True)
        return True

    def close(self) -> None:
        """Nothing to give back."""


class Changes:
    """One line on stdout whenever the answer changes, for people."""

    def __init__(self):
        self._last = None

    def __call__(self, result: Result) -> bool:
        """Write a line if the label is another one."""
        if result.answer.label != self._last:
            self._last = result.answer.label
            print(f"{result.frame.time:8.2f} s  {self._last}  {result.answer.confidence:.2f}", flush=True)
        return True

    def close(self) -> None:
        """Nothing to give back."""


class Video:
    """An annotated video file (MPEG-4)."""

    def __init__(self, path: Path, fps: float):
        """Write to `path`, to be played at `fps`. Raises UserError now if that can't be done."""
        if path.suffix.lower() != ".mp4":
            raise UserError(f"--record {path}: give a name that ends in .mp4")
        if path.exists():
            raise UserError(f"--record {path}: there is one already, give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        quiet()
        self._path, self._fps = path, fps
        self._writer = None

    def __call__(self, result: Result) -> bool:
        """Write one frame; the first decides the size."""
        picture = result.picture
        height, width = picture.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._fps, (width, height))
            self._size = (width, height)
            if not self._writer.isOpened():
                raise UserError(f"this OpenCV can't write a video to {self._path}")
        self._writer.write(picture if (width, height) == self._size else cv2.resize(picture, self._size))
        return True

    def close(self) -> None:
        """Finish the file; none is left if there was no frame."""
        if self._writer is None:
            self._path.unlink()
        else:
            self._writer.release()


class Screen:
    """The window on this machine's screen."""

    def __init__(self):
        self._window = Window("teachcam")

    def __call__(self, result: Result) -> bool:
        """Show one frame; False when the user closed the window."""
        self._window.show(result.picture)
        return not self._window.closed

    def close(self) -> None:
        """Close the window."""
        self._window.close()
