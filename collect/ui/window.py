"""A window on this machine's screen, for the commands that show the camera."""

from __future__ import annotations

import ctypes
import os
import sys

import cv2
import numpy as np

from teachcam.errors import UserError


class Window:
    """One OpenCV window; q, Esc or its close button end it. Raises UserError where there is no screen."""

    def __init__(self, title: str):
        """Open it."""
        # Asked first, because Qt ends the whole program where it finds no display.
        display = os.environ.get("DISPLAY")
        if sys.platform == "linux" and not (display or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("no display to open a window on: give --headless, or set DISPLAY")
        if sys.platform == "linux" and display and not _answers():
            raise UserError(f"the display {display} does not answer, or not this user: give --headless")
        self._title = title
        self.closed = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            raise UserError("this OpenCV has no windows (a headless build): give --headless") from None
        self._sized = False

    def show(self, picture: np.ndarray) -> str:
        """Show a picture, uint8 [H, W, 3] BGR, and return the key pressed since the last one, or ''."""
        if not self._sized:  # the first picture decides
            cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
            self._sized = True
        cv2.imshow(self._title, picture)
        code = cv2.waitKey(1) & 0xFF
        key = "" if code == 0xFF else chr(code)
        self.closed = key in ("q", "\x1b") or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        return key

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def _answers() -> bool:
    """Say whether DISPLAY can be opened, or if that can't be asked."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return True
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)


def put_text(picture: np.ndarray, text: str, line: int = 0, color: tuple[int, int, int] = (255, 255, 255)) -> None:
    """Write one line of text (ASCII) into a picture, on a dark ground, sized to the picture.

    Lines count from the top, from 0; negative ones from the bottom, from -1.
    """
    scale = picture.shape[0] / 480 * 0.7
    thickness = max(1, round(1.6 * scale))
    height, margin = round(34 * scale), round(8 * scale)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    top = margin + line * height if line >= 0 else picture.shape[0] - margin + line * height
    ground = picture[top : top + height, margin : width + 3 * margin]
    ground //= 3
    where = (2 * margin, top + round(24 * scale))
    cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
