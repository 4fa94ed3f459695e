"""Measure the quality of an image (sharpness, exposure), and shrink it to compare it with others."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.preprocessing import resize

# An image is blurred if it has less than this share of the sharpness that is usual in its session. A fixed sharpness
# would not do, because scenes and cameras differ too much.
BLUR_RATIO = 0.4
SHARPNESS_DECAY = 0.99  # per image: the sharpest one is forgotten within some seconds
# An image is too dark if this share of it has gray levels below DARK, and too bright if it has levels above BRIGHT.
MOST, DARK, BRIGHT = 0.9, 70, 200
SIGNATURE = (24, 32)  # height and width of the small copies of images that are compared


def to_small_gray(image: np.ndarray) -> np.ndarray:
    """Return a gray copy of one size, uint8 [240, 320], of an image, uint8 [H, W, 3] BGR."""
    return cv2.cvtColor(resize(image, (240, 320)), cv2.COLOR_BGR2GRAY)


def sharpness(small_gray: np.ndarray) -> float:
    """Return the variance of the Laplacian (Pech-Pacheco 2000). Blurred images have less.

    Args:
        small_gray: What `to_small_gray` returns. A slight blur removes its noise first.
    """
    return float(cv2.Laplacian(cv2.GaussianBlur(small_gray, (3, 3), 0), cv2.CV_32F).var())


def exposure_fault(small_gray: np.ndarray) -> str:
    """Return "too dark" or "too bright" for what `to_small_gray` returns, or "" if it is neither."""
    if np.count_nonzero(small_gray < DARK) >= MOST * small_gray.size:
        return "too dark"
    return "too bright" if np.count_nonzero(small_gray > BRIGHT) >= MOST * small_gray.size else ""


def signature(image: np.ndarray) -> np.ndarray:
    """Return a small copy of an image to compare it with others, float32 [24 * 32 * 3], 0 to 255."""
    return resize(image, SIGNATURE).astype(np.float32).ravel()


class CameraHints:
    """Detects blurred, dark and bright images of a camera.

    An image is blurred if it is much less sharp than those of the last seconds.

    Attributes:
        newest: The hints about the newest image.
    """

    def __init__(self) -> None:
        """Begin without images."""
        self.newest: list[str] = []
        self._max_sharpness = 0.0  # of the last seconds

    def __call__(self, image: np.ndarray) -> list[str]:
        """Return hints about an image, uint8 [H, W, 3] BGR."""
        small = to_small_gray(image)
        sharp = sharpness(small)
        self._max_sharpness = max(sharp, SHARPNESS_DECAY * self._max_sharpness)
        blurred = "blurred: hold still" if sharp < BLUR_RATIO * self._max_sharpness else ""
        self.newest = [hint for hint in (exposure_fault(small), blurred) if hint]
        return self.newest
