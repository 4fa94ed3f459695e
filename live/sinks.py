"""Where answers go: JSON lines, text, an annotated video, a window."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import cv2

from collect.camera import Frame
from collect.cli import UserError
from collect.sources import quiet
from collect.window import Window
from live.classifier import Answer
from live.overlay import annotate


class Result(NamedTuple):
    """One frame, its answer, and how long both took. Times in seconds."""

    frame: Frame
    answer: Answer
    latency: float  # from the frame in hand to the answer
    age: float  # from the frame's capture to the answer
    fps: float  # answers a second, lately


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
        picture = annotate(result.frame.image, result.answer, result.fps, result.age)
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
        self._window.show(annotate(result.frame.image, result.answer, result.fps, result.age))
        return not self._window.closed

    def close(self) -> None:
        """Close the window."""
        self._window.__exit__()


def stderr_summary(frames: int, dropped: int, latency, age, provider: str) -> None:
    """Say at the end how it went."""
    if not frames:
        print("no frame was answered", file=sys.stderr)
        return
    print(
        f"{frames} frames, {dropped} dropped, on {provider}; "
        f"latency p50 {latency.percentile(50):.1f} ms, p99 {latency.percentile(99):.1f} ms; "
        f"frame age p50 {age.percentile(50):.1f} ms, p99 {age.percentile(99):.1f} ms",
        file=sys.stderr,
    )
