"""The window on this machine's screen: it shows the newest answer, and takes corrections."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable

import numpy as np

from teachcam.collect.ui.window import Window, put_text
from teachcam.drawing import draw_heat_map
from teachcam.errors import UserError
from teachcam.live.occlusion import heat_map

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera
    from teachcam.live.sinks.base import Result

HELP = (
    "1-9     this is in truth that label: save it",
    "h       where the model looks",
    "?       this help",
    "q       quit",
)
YELLOW, RED = (60, 220, 255), (60, 60, 255)


class Screen:
    """A sink for the loop's thread, and a window for the main one, which alone may have any.

    The loop leaves its newest result here and goes on; the window shows as many as it can.
    """

    def __init__(self, camera: Camera, teach: Callable[[np.ndarray, str], int]):
        """Open it; `teach` saves an image under a label."""
        self._window = Window("teachcam")
        self._camera, self._teach = camera, teach
        self._newest: Result | None = None
        self._arrived = threading.Event()
        self._help, self._heat = False, False
        self._looker = ThreadPoolExecutor(1, "look")  # a heat map takes as long as 37 answers: keys must not wait
        self._looking: Future | None = None
        self._seen: np.ndarray | None = None  # the last heat map
        self._message = "? helps"

    def __call__(self, result: Result) -> bool:
        """Take the newest result; False when the user closed the window."""
        self._newest = result
        self._arrived.set()
        return not self._window.closed

    def close(self) -> None:
        """Nothing to give back in the loop's thread."""

    def run(self, is_running: Callable[[], bool]) -> None:
        """Show results until the user closes the window or nothing runs any more: in the main thread."""
        with self._window:
            shown = None
            while is_running() and not self._window.closed:
                self._arrived.wait(0.1)
                self._arrived.clear()
                result = self._newest
                if result is not None:
                    shown = result
                    self.press(self._window.show(self.draw(result)), result)
            if shown is not self._newest and not self._window.closed:
                self._window.show(self.draw(self._newest))

    def press(self, key: str, result: Result) -> None:
        """Do what a key stands for, with the picture that was shown when it was pressed."""
        if key == "h":
            self._heat = not self._heat
        elif key == "?":
            self._help = not self._help
        elif key.isdecimal() and 0 < int(key) <= len(result.labels):
            label = result.labels[int(key) - 1]
            try:
                self._message = f"saved as {label} ({self._teach(result.frame.image, label)})"
            except UserError as error:
                self._message = str(error)

    def draw(self, result: Result) -> np.ndarray:
        """Return what the window shows of a result, uint8 [H, W, 3] BGR."""
        picture = result.picture
        if self._heat or self._help or self._message or self._camera.lost:
            picture = picture.copy()
        if self._heat:
            self._look(result)
            if self._seen is not None:
                draw_heat_map(picture, self._seen)
        line = 2
        if self._camera.lost:
            put_text(picture, "camera lost, opening it again", line, RED)
            line += 1
        if self._message:
            put_text(picture, self._message, line, YELLOW)
            line += 1
        for text in HELP if self._help else ():
            put_text(picture, text, line)
            line += 1
        return picture

    def _look(self, result: Result) -> None:
        """Take the heat map that is ready, and begin the next."""
        if self._looking is None or self._looking.done():
            self._seen = self._looking.result() if self._looking else None
            self._looking = self._looker.submit(heat_map, result.classifier.twin(), result.frame.image)
