"""Random parameters of the augmentation: sampled here, applied by `augment/augmentation.py`.

Shifts and sizes are fractions of an image's width or height.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from teachcam.clutter import NUM_CLUTTER_IMAGES

BORDER_MODES = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Affine:
    """An affine transform about the center of an image."""

    scale: float
    stretch: float  # widens by this factor and lowers by it; 1 keeps the aspect ratio
    rotation: float  # degrees, counterclockwise
    shift_x: float  # fraction of the width
    shift_y: float  # fraction of the height

    def matrix(self, width: int, height: int) -> np.ndarray:
        """Return the matrix from source pixels to target pixels for an image of this size, float64 [2, 3]."""
        matrix = np.array(cv2.getRotationMatrix2D((width / 2, height / 2), self.rotation, self.scale), np.float64)
        matrix[0, :2] *= self.stretch
        matrix[1, :2] /= self.stretch
        size = np.array([width, height])
        shift = np.array([self.shift_x, self.shift_y])
        matrix[:, 2] = size / 2 + shift * size - matrix[:, :2] @ (size / 2)
        return matrix


@dataclass(frozen=True)
class ColorJitter:
    """A change of color: channel gains, then contrast and brightness about the image's mean, then gamma."""

    gains: np.ndarray  # float64 [3], BGR
    gray: bool = False  # remove all color first
    contrast: float = 1.0
    brightness: float = 1.0
    gamma: float = 1.0


@dataclass(frozen=True)
class ImageTransform:
    """A transform of a whole image. Its steps are applied in the order of the fields."""

    affine: Affine
    border_mode: int  # one of BORDER_MODES: how pixels from outside the image are filled
    border_color: np.ndarray  # uint8 [3], BGR, for the last of them
    color_jitter: ColorJitter | None = None
    blur_sigma: float = 0.0  # pixels of an image 224 high
    # Gray levels, on the blue channel only, a camera's noisiest. Noise on all channels cost accuracy in new rooms.
    noise_sigma: float = 0.0
    noise_seed: int = 0
    occluder: tuple[float, float, float, float] | None = None  # top, left, height, width (random erasing, Zhong 2017)
    occluder_color: np.ndarray | None = None  # uint8 [3], BGR


@dataclass(frozen=True)
class OrientedBackground:
    """A recorded background or a clutter image, turned or flipped."""

    is_clutter: bool  # whether `index` counts clutter images; otherwise recorded backgrounds
    index: int
    quarter_turns: int  # counterclockwise
    flipped: bool  # left to right, after the turn


@dataclass(frozen=True)
class Background:
    """A background image, sometimes blended half and half with a second one."""

    base: OrientedBackground
    transform: ImageTransform  # of the base
    overlay: OrientedBackground | None


@dataclass(frozen=True)
class ForegroundTransform:
    """Transform of a segmented foreground before it is composited onto a background."""

    affine: Affine
    gains: np.ndarray | None  # float64 [3], BGR
    blur_sigma: float  # pixels of an image 224 high; applied to the composited image


@dataclass(frozen=True)
class AugmentParams:
    """All random parameters of one augmented image.

    With a `background`, the result is the image's `foreground` on that background, or the bare background if
    `foreground` is None. Without one, the result is the image after its `transforms`.
    """

    index: int  # of the image
    transforms: tuple[ImageTransform, ...] = ()
    foreground: ForegroundTransform | None = None
    background: Background | None = None

    @property
    def recorded_background(self) -> int:
        """The index of the recorded background that the image shows, or -1."""
        return -1 if self.background is None or self.background.base.is_clutter else self.background.base.index


def sample_affine(rng: np.random.Generator, strength: float = 1.0) -> Affine:
    """Sample an affine transform.

    Args:
        rng: Source of random numbers.
        strength: Factor of the ranges; 1 covers what a new person or camera position changes.
    """
    scale, stretch = 1 + strength * rng.uniform(-0.25, 0.25), np.exp(min(strength, 1.0) * rng.uniform(-0.1, 0.1))
    rotation, (x, y) = strength * rng.uniform(-15, 15), min(strength, 1.0) * rng.uniform(-0.15, 0.15, 2)
    return Affine(scale, stretch, rotation, x, y)


def sample_color_jitter(rng: np.random.Generator) -> ColorJitter:
    """Sample a change of color as another light or another camera causes it."""
    return ColorJitter(
        gray=rng.random() < 0.15,
        gains=rng.uniform(0.75, 1.25, 3),
        contrast=rng.uniform(0.6, 1.4),
        brightness=rng.uniform(0.6, 1.4),
        gamma=np.exp(rng.uniform(-0.5, 0.5)) if rng.random() < 0.3 else 1.0,
    )


def sample_image_transform(rng: np.random.Generator) -> ImageTransform:
    """Sample a strong transform: another position, light, focus, sensor noise and something in the way."""
    affine, border_mode, border_color = sample_affine(rng), BORDER_MODES[rng.integers(3)], _sample_color(rng)
    color_jitter = sample_color_jitter(rng) if rng.random() < 0.8 else None
    blur_sigma = rng.uniform(0.5, 2) if rng.random() < 0.25 else 0.0
    noise_sigma = rng.uniform(2, 10) if rng.random() < 0.3 else 0.0
    occluder = None
    if rng.random() < 0.3:
        height, width = rng.uniform(0.12, 0.33, 2)
        occluder = (rng.uniform(0, 1 - height), rng.uniform(0, 1 - width), height, width)
    return ImageTransform(
        affine,
        border_mode,
        border_color,
        color_jitter,
        blur_sigma,
        noise_sigma,
        noise_seed=int(rng.integers(2**31)),
        occluder=occluder,
        occluder_color=_sample_color(rng),
    )


def sample_slight_transform(rng: np.random.Generator) -> ImageTransform:
    """Sample a slight change of position and light, as common tutorials use."""
    color_jitter = ColorJitter(rng.uniform(0.9, 1.1, 3), brightness=rng.uniform(0.9, 1.1))
    return ImageTransform(sample_affine(rng, strength=0.3), cv2.BORDER_REFLECT_101, _sample_color(rng), color_jitter)


def sample_background(rng: np.random.Generator, num_backgrounds: int) -> Background:
    """Sample a background: one of `num_backgrounds` recorded ones, or a clutter image."""
    is_clutter = rng.random() >= 0.4
    base = _sample_oriented(rng, is_clutter, NUM_CLUTTER_IMAGES if is_clutter else num_backgrounds)
    transform = sample_image_transform(rng)
    overlay = _sample_oriented(rng, True, NUM_CLUTTER_IMAGES) if rng.random() < 0.3 else None
    return Background(base, transform, overlay)


def sample_foreground_transform(rng: np.random.Generator) -> ForegroundTransform:
    """Sample a transform of a foreground. It moves further than a whole image, because no border has to be filled."""
    affine = sample_affine(rng, strength=1.3)
    gains = rng.uniform(0.8, 1.2, 3) * rng.uniform(0.6, 1.5) if rng.random() < 0.8 else None
    return ForegroundTransform(affine, gains, rng.uniform(0.5, 2) if rng.random() < 0.3 else 0.0)


def _sample_oriented(rng: np.random.Generator, is_clutter: bool, count: int) -> OrientedBackground:
    turned = rng.random() < 0.5
    return OrientedBackground(is_clutter, int(rng.integers(count)), int(rng.integers(4)) if turned else 0, not turned)


def _sample_color(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, 3).astype(np.uint8)
