"""What can be wrong with one picture (blurred, too dark, too bright), and how alike two pictures or places are."""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.preprocessing import resize

BLURRED = 0.4  # of the sharpness usual in its session: scenes and cameras differ too much for one figure
DARK, BRIGHT = 70, 200  # gray levels: too dark if nine tenths of the picture are under, too bright if over
SIGNATURE = (24, 32)  # height, width


def gray(image: np.ndarray) -> np.ndarray:
    """Return an image, uint8 [H, W, 3] BGR, as uint8 [240, 320] gray: small and always of one size."""
    return cv2.cvtColor(resize(image, (240, 320)), cv2.COLOR_BGR2GRAY)


def sharpness(small: np.ndarray) -> float:
    """Return the variance of the Laplacian of a `gray` picture, its noise smoothed away: less is more blurred."""
    return float(cv2.Laplacian(cv2.GaussianBlur(small, (3, 3), 0), cv2.CV_32F).var())


def exposure_fault(small: np.ndarray) -> str:
    """Return `too dark` or `too bright` for a `gray` picture that is, else ''."""
    dark, bright = np.percentile(small, (90, 10))
    return "too dark" if dark < DARK else "too bright" if bright > BRIGHT else ""


def signature(image: np.ndarray) -> np.ndarray:
    """Return a small picture to compare by, float32 [24 * 32 * 3], of 0-255 values."""
    return resize(image, SIGNATURE).astype(np.float32).ravel()


class Background:
    """What stays in place while a session is recorded, to tell whether two sessions show the same place."""

    def __init__(self, signatures: np.ndarray):
        """Take it from a session's signatures, float32 [N, D]."""
        self._picture = np.median(signatures, axis=0).reshape(-1, 3)
        moved = np.median(np.abs(signatures - self._picture.ravel()), axis=0).reshape(-1, 3)
        self._still = moved.max(axis=1) < 8  # gray levels

    def alike(self, other: Background) -> bool:
        """Say whether both show one place: most of what stays in place in both is the same.

        On recordings of 16 rooms (`rps`, `thumbs`): true for two thirds of the pairs of recordings from one room,
        and for one in fifty of the pairs from two.
        """
        still = self._still & other._still
        if still.sum() < 60:
            return False
        distance = np.abs(self._picture - other._picture).max(axis=1)
        return bool((distance[still] < 16).mean() > 0.5)
