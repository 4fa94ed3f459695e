"""Measure the quality of an image (sharpness, exposure), and whether two images or two places look alike."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.preprocessing import resize

# An image is blurred if it has less than this share of the sharpness that is usual in its session. A fixed sharpness
# would not do, because scenes and cameras differ too much.
BLUR_RATIO = 0.4
# Gray levels. An image is too dark if nine tenths of it are below DARK, and too bright if nine tenths are above BRIGHT.
DARK, BRIGHT = 70, 200
SIGNATURE = (24, 32)  # height and width of the small copies of images that are compared

# To compare backgrounds, in gray levels and pixels of a signature:
STILL = 8  # a pixel belongs to the background if it typically changes by less in a session
SAME_PIXEL = 16  # two backgrounds agree in a pixel if they differ by less
MIN_SHARED = 60  # pixels that two backgrounds must have in common, of 768


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
    ninth_tenth, first_tenth = np.percentile(small_gray, (90, 10))
    return "too dark" if ninth_tenth < DARK else "too bright" if first_tenth > BRIGHT else ""


def signature(image: np.ndarray) -> np.ndarray:
    """Return a small copy of an image to compare it with others, float32 [24 * 32 * 3], 0 to 255."""
    return resize(image, SIGNATURE).astype(np.float32).ravel()


class Background:
    """The still part of a session's images. It shows whether two sessions were recorded in the same place."""

    def __init__(self, signatures: np.ndarray):
        """Find the background: pixels that hardly change in the session.

        Args:
            signatures: Of all images of the session, float32 [num_images, 24 * 32 * 3].
        """
        self._median = np.median(signatures, axis=0).reshape(-1, 3)
        change = np.median(np.abs(signatures - self._median.ravel()), axis=0).reshape(-1, 3)
        self._is_still = change.max(axis=1) < STILL

    def is_like(self, other: Background) -> bool:
        """Return whether two backgrounds show the same place: most of their common still pixels agree.

        On recordings of 16 rooms (`rps`, `thumbs`) it is True for two thirds of the pairs of recordings from one room,
        and for one in fifty of the pairs from two rooms.
        """
        shared = self._is_still & other._is_still
        if shared.sum() < MIN_SHARED:
            return False
        difference = np.abs(self._median - other._median).max(axis=1)
        return bool((difference[shared] < SAME_PIXEL).mean() > 0.5)
