"""What another room, another person and another camera would change of a frame: drawn here, shown by others.

`train/augment.py` shows it with OpenCV, `train/augment_device.py` many frames at once where the network runs. Lengths
are shares of a picture's width or height.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

REFLECT, REPLICATE, CONSTANT = BORDERS = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)
CLUTTERS = 64  # pictures of clutter to choose from


@dataclass(frozen=True)
class Affine:
    """Shift, scale, stretch and tilt (degrees), about the middle."""

    scale: float
    stretch: float
    tilt: float
    x: float
    y: float

    def matrix(self, width: int, height: int) -> np.ndarray:
        """Return where a pixel of a picture of that size goes, float64 [2, 3]."""
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), self.tilt, self.scale)
        matrix[0, :2] *= self.stretch
        matrix[1, :2] /= self.stretch
        size = np.array([width, height])
        matrix[:, 2] = size / 2 + np.array([self.x, self.y]) * size - matrix[:, :2] @ (size / 2)
        return matrix


@dataclass(frozen=True)
class ColorJitter:
    """Tint, then contrast and brightness about the picture's mean, then gamma; at times there is no color at all."""

    gains: np.ndarray  # float64 [3], BGR
    gray: bool = False
    contrast: float = 1.0
    brightness: float = 1.0
    gamma: float = 1.0


@dataclass(frozen=True)
class ImageTransform:
    """All that is changed of a picture, in this order. What comes into view is mirrored, drawn out, or of a color."""

    move: Affine
    border: int
    color: np.ndarray  # uint8 [3], BGR
    light: ColorJitter | None = None
    blur: float = 0.0  # sigma in pixels of a picture 224 high
    noise: float = 0.0  # sigma in gray levels, of blue, a camera's noisiest; of all three it cost points in new rooms
    seed: int = 0  # of the noise
    cover: tuple[float, float, float, float] | None = None  # top, left, height, width
    cover_color: np.ndarray | None = None


@dataclass(frozen=True)
class OrientedBackground:
    """A background, or a picture of clutter, any side up: turned by quarters, or flipped left to right."""

    clutter: bool
    index: int
    quarters: int
    flipped: bool


@dataclass(frozen=True)
class Background:
    """A picture of no label, with another one over it at times."""

    picture: OrientedBackground
    change: ImageTransform
    over: OrientedBackground | None


@dataclass(frozen=True)
class ForegroundTransform:
    """How what a label is about is moved and lit before its backdrop."""

    move: Affine
    gains: np.ndarray | None  # float64 [3], BGR
    blur: float  # as in Change, of the whole picture


@dataclass(frozen=True)
class AugmentParams:
    """A frame as it is to be shown: changed, or its front before a backdrop, or a backdrop alone."""

    index: int
    changes: tuple[ImageTransform, ...] = ()
    front: ForegroundTransform | None = None
    backdrop: Background | None = None


def sample_affine(rng: np.random.Generator, reach: float = 1.0) -> Affine:
    """Draw a move; `reach` times as far as another person's would be."""
    scale, stretch = 1 + reach * rng.uniform(-0.25, 0.25), np.exp(min(reach, 1.0) * rng.uniform(-0.1, 0.1))
    tilt, (x, y) = reach * rng.uniform(-15, 15), min(reach, 1.0) * rng.uniform(-0.15, 0.15, 2)
    return Affine(scale, stretch, tilt, x, y)


def sample_color_jitter(rng: np.random.Generator) -> ColorJitter:
    """Draw another light, and another camera's colors."""
    return ColorJitter(
        gray=rng.random() < 0.15,
        gains=rng.uniform(0.75, 1.25, 3),
        contrast=rng.uniform(0.6, 1.4),
        brightness=rng.uniform(0.6, 1.4),
        gamma=np.exp(rng.uniform(-0.5, 0.5)) if rng.random() < 0.3 else 1.0,
    )


def sample_image_transform(rng: np.random.Generator) -> ImageTransform:
    """Draw all that another room, person and camera change of a picture but its background."""
    move, border, color = sample_affine(rng), BORDERS[rng.integers(3)], _color(rng)
    light = sample_color_jitter(rng) if rng.random() < 0.8 else None
    blur = rng.uniform(0.5, 2) if rng.random() < 0.25 else 0.0
    noise = rng.uniform(2, 10) if rng.random() < 0.3 else 0.0
    cover = None
    if rng.random() < 0.3:
        height, width = rng.uniform(0.12, 0.33, 2)
        cover = (rng.uniform(0, 1 - height), rng.uniform(0, 1 - width), height, width)
    return ImageTransform(move, border, color, light, blur, noise, int(rng.integers(2**31)), cover, _color(rng))


def sample_slight_transform(rng: np.random.Generator) -> ImageTransform:
    """Draw a little of position and light, as the tutorials have it."""
    light = ColorJitter(rng.uniform(0.9, 1.1, 3), brightness=rng.uniform(0.9, 1.1))
    return ImageTransform(sample_affine(rng, reach=0.3), REFLECT, _color(rng), light)


def sample_background(rng: np.random.Generator, backgrounds: int) -> Background:
    """Draw a backdrop: one of so many scenes' backgrounds, or clutter."""
    clutter = rng.random() >= 0.4
    picture = _draw_turned(rng, clutter, CLUTTERS if clutter else backgrounds)
    change = sample_image_transform(rng)
    return Background(picture, change, _draw_turned(rng, True, CLUTTERS) if rng.random() < 0.3 else None)


def sample_foreground_transform(rng: np.random.Generator) -> ForegroundTransform:
    """Draw how a front is moved and lit: further than a whole frame, for nothing has to come into view."""
    move = sample_affine(rng, reach=1.3)
    gains = rng.uniform(0.8, 1.2, 3) * rng.uniform(0.6, 1.5) if rng.random() < 0.8 else None
    return ForegroundTransform(move, gains, rng.uniform(0.5, 2) if rng.random() < 0.3 else 0.0)


def _draw_turned(rng: np.random.Generator, clutter: bool, count: int) -> OrientedBackground:
    turned = rng.random() < 0.5
    return OrientedBackground(clutter, int(rng.integers(count)), int(rng.integers(4)) if turned else 0, not turned)


def _color(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3).astype(np.uint8)
