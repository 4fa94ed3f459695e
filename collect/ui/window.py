"""A window on this machine's screen, for the commands that show images."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

import cv2
import numpy as np

from teachcam.errors import UserError


class Window:
    """One OpenCV window. The user closes it with q, Esc or its close button. Use it in the main thread only.

    Attributes:
        closed: True when the user has closed the window.
    """

    def __init__(self, title: str):
        """Open the window.

        Args:
            title: In its title bar.

        Raises:
            UserError: There is no display, it can't be used, or this OpenCV was built without windows.
        """
        # This is checked first, because Qt ends the whole program if it finds no display.
        display = os.environ.get("DISPLAY")
        if sys.platform == "linux" and not (display or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("no display to open a window on: add --headless, or set DISPLAY")
        if sys.platform == "linux" and display:
            if not _can_open_display():
                raise UserError(f"the display {display} does not answer, or is another user's: add --headless")
            _use_the_systems_libx11_xcb()
        self._title = title
        self.closed = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error:
            raise UserError("this OpenCV has no windows: add --headless, or install opencv-python") from None
        self._sized = False

    def show(self, image: np.ndarray) -> str:
        """Show an image, and return the key that was pressed since the last one.

        Args:
            image: uint8 [H, W, 3], BGR. The first image decides the size of the window.

        Returns:
            The key as one character, or "" if no key was pressed.
        """
        if not self._sized:
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            self._sized = True
        cv2.imshow(self._title, image)
        code = cv2.waitKey(1) & 0xFF
        key = "" if code == 0xFF else chr(code)
        self.closed = key in ("q", "\x1b") or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        return key

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()


def _can_open_display() -> bool:
    """Return whether the X11 display can be opened. Also True if libX11, which tells it, is missing."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return True
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)


def _use_the_systems_libx11_xcb() -> None:
    """Load this library before Qt does.

    opencv-python brings an old libX11-xcb with it, but not libX11. Where the system's libX11 has another layout, it
    goes on taking events that are for Qt, and now and then a window stays black and gets no key.
    """
    with contextlib.suppress(OSError):  # where it is missing, there is nothing better
        ctypes.CDLL("libX11-xcb.so.1", ctypes.RTLD_GLOBAL)
