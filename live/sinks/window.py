"""The window on this machine's screen: it shows the newest result and takes corrections."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable

import numpy as np

from teachcam.collect.ui.window import Window
from teachcam.drawing import RED, WHITE, YELLOW, draw_heat_map, put_text
from teachcam.errors import UserError
from teachcam.live.occlusion import heat_map

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera
    from teachcam.live.sinks.base import FrameResult

HELP = (
    "1-9     correct it: save this image with that label",
    "m       heat map: show where the model looks",
    "h       show or hide this help",
    "q       quit",
)


class LiveWindow:
    """A sink for the loop's thread, with a window for the main thread: only the main thread may have windows.

    The loop leaves its newest result here and goes on. The window shows as many of them as it can.

    Args:
        camera: Where the frames come from; the window tells when it is lost.
        save_correction: Called with an image, uint8 [H, W, 3] BGR, and its true label. Returns how many images it has
            saved with that label. The window shows a UserError that it raises.

    Raises:
        UserError: No window can be opened here.
    """

    def __init__(self, camera: Camera, save_correction: Callable[[np.ndarray, str], int]):
        self._window = Window("teachcam")
        self._camera, self._save_correction = camera, save_correction
        self._newest: FrameResult | None = None
        self._arrived = threading.Event()
        self._show_help, self._show_heat_map = False, False
        self._heat_map_thread = ThreadPoolExecutor(1, "heat map")  # it takes as long as 37 predictions, too long here
        self._next_heat_map: Future | None = None
        self._heat_map: np.ndarray | None = None
        self._message = "h shows help"

    def __call__(self, result: FrameResult) -> bool:
        """Take the newest result. Returns False when the user has closed the window."""
        self._newest = result
        self._arrived.set()
        return not self._window.closed

    def close(self) -> None:
        """Do nothing: the window belongs to the main thread, and `run` closes it."""

    def run(self, is_running: Callable[[], bool]) -> None:
        """Show results until the user closes the window or `is_running` returns False. Call this in the main thread."""
        with self._window:
            shown = None
            while is_running() and not self._window.closed:
                self._arrived.wait(0.1)
                self._arrived.clear()
                result = self._newest
                if result is not None:
                    shown = result
                    self.press(self._window.show(self.draw(result)), result)
            if self._newest is not None and shown is not self._newest and not self._window.closed:
                self._window.show(self.draw(self._newest))

    def press(self, key: str, result: FrameResult) -> None:
        """Act on a key that was pressed while this result was shown."""
        if key == "m":
            self._show_heat_map = not self._show_heat_map
        elif key == "h":
            self._show_help = not self._show_help
        elif key.isdecimal() and 0 < int(key) <= len(result.labels):
            label = result.labels[int(key) - 1]
            try:
                self._message = f"saved as {label} ({self._save_correction(result.frame.image, label)})"
            except UserError as error:
                self._message = str(error)

    def draw(self, result: FrameResult) -> np.ndarray:
        """Draw a result for the window, uint8 [H, W, 3] BGR."""
        lines = [("camera lost, reconnecting", RED)] if self._camera.reconnecting else []
        if self._message:
            lines.append((self._message, YELLOW))
        if self._show_help:
            lines += [(text, WHITE) for text in HELP]
        image = result.annotated_image
        if lines or self._show_heat_map:
            image = image.copy()
        if self._show_heat_map:
            self._update_heat_map(result)
            if self._heat_map is not None:
                draw_heat_map(image, self._heat_map)
        for line, (text, color) in enumerate(lines, 2):  # lines 0 and 1 hold the prediction and the status
            put_text(image, text, line, color)
        return image

    def _update_heat_map(self, result: FrameResult) -> None:
        """Take the heat map if it is ready, and start the next one."""
        if self._next_heat_map is None or self._next_heat_map.done():
            self._heat_map = self._next_heat_map.result() if self._next_heat_map else None
            classifier = result.classifier.clone_for_thread()
            self._next_heat_map = self._heat_map_thread.submit(heat_map, classifier, result.frame.image)
