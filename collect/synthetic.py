"""A camera that needs no camera: it draws hands in a room. The tests, the demo and the examples use it.

    python collect/capture.py --camera "synthetic:thumbs_up?seed=3" --label thumbs_up --headless --max-frames 24

A seed stands for a session: one room, one light, one person. Within it the hand moves, turns, and comes closer or goes
farther; the camera shakes a little, and each image has other noise.
"""

from __future__ import annotations

import itertools
import time
from urllib.parse import parse_qsl

import numpy as np

from teachcam.collect.hands import LABELS, draw_session
from teachcam.errors import CameraError

_NUM_BITS, _BLOCK = 16, 16  # bits of an image's number, and the side in pixels of the square that shows one


class SyntheticCamera:
    """The source named `synthetic[:LABEL][?seed=N&fps=F&size=WxH&numbered=1]`, see `Source` in collect/sources.py.

    Without LABEL it shows each label for 1.5 seconds, again and again. Without a seed each opening is a new session.
    The same seed gives the same pixels. With `numbered=1` each image shows its number, which `read_number` reads.
    """

    live = True

    def __init__(
        self, options: str = "", width: int | None = None, height: int | None = None, fps: float | None = None
    ):
        """Parse the options, and draw the room.

        Args:
            options: The part of the name after `synthetic:`.
            width: In pixels, 640 by default. `size` in the options overrides it.
            height: In pixels, 480 by default.
            fps: Images per second, 30 by default. `fps` in the options overrides it.

        Raises:
            CameraError: The label or an option is unknown.
        """
        label, _, query = options.partition("?")
        if label and label not in LABELS:
            raise CameraError(f"the synthetic camera has no label {label!r}: use one of {', '.join(LABELS)}")
        seed, numbered = None, False
        self.fps, width, height = fps or 30.0, width or 640, height or 480
        try:
            for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
                if key == "seed":
                    seed = int(value)
                elif key == "fps":
                    self.fps = float(value)
                elif key == "size":
                    width, height = map(int, value.split("x"))
                elif key == "numbered":
                    numbered = value == "1"
                else:
                    raise ValueError(key)
            if seed is not None and seed < 0:
                raise ValueError(seed)
            if not (0 < self.fps <= 1000 and 16 <= width <= 7680 and 16 <= height <= 4320):
                raise ValueError(query)
        except ValueError:
            raise CameraError(
                f"synthetic camera options {query!r}: expected seed=N, fps=F, size=WxH and numbered=1, joined by &"
            ) from None
        images = draw_session(np.random.default_rng(seed), label or None, self.fps, width, height)
        self._images = map(_draw_number, images, itertools.count()) if numbered else images
        self._due = time.monotonic()

    def read(self) -> np.ndarray:
        """Wait until the next image is due, and return it, uint8 [H, W, 3] BGR."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        # A late reader gets an image at once. Images that it missed are not made up for.
        self._due = max(self._due + 1 / self.fps, time.monotonic() - 1 / self.fps)
        return next(self._images)

    def close(self) -> None:
        """Do nothing: there is no device."""


def render(label: str, seed: int, num_images: int, width: int = 640, height: int = 480) -> np.ndarray:
    """Draw the first images of a session, without waiting between them.

    Args:
        label: One of LABELS.
        seed: Seed of the session.
        num_images: How many, at 30 images per second of the session.
        width: In pixels.
        height: In pixels.

    Returns:
        uint8 [num_images, height, width, 3], BGR.
    """
    images = draw_session(np.random.default_rng(seed), label, 30.0, width, height)
    return np.stack([next(images) for _ in range(num_images)])


def read_number(image: np.ndarray) -> int:
    """Return the number that an image of a `numbered` camera shows: uint8 [H, W, 3], even after JPEG compression."""
    blocks = image[-_BLOCK:, : _NUM_BITS * _BLOCK].reshape(_BLOCK, _NUM_BITS, _BLOCK, 3)
    bits = blocks.mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << index for index in range(_NUM_BITS) if bits[index]))


def _draw_number(image: np.ndarray, number: int) -> np.ndarray:
    """Draw a number as a row of black and white squares, the lowest bit first."""
    for index in range(_NUM_BITS):
        image[-_BLOCK:, index * _BLOCK : (index + 1) * _BLOCK] = 255 if number >> index & 1 else 0
    return image
