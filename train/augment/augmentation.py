"""Augment training images with OpenCV, so that a model also works in another room, with another person and camera.

It changes the background, position, distance, rotation, light, color, focus and noise, and puts something in the way.
It never flips an image: labels may differ by side, such as left and right hand.
"""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.clutter import clutter_images
from teachcam.labels import has_background_label
from teachcam.train.augment.foreground import Foregrounds
from teachcam.train.augment.params import (
    AugmentParams,
    Background,
    ColorJitter,
    ForegroundTransform,
    ImageTransform,
    OrientedBackground,
    sample_background,
    sample_foreground_transform,
    sample_image_transform,
    sample_slight_transform,
)

KINDS = ("room", "light", "none")
BACKGROUND_PROBABILITY = 0.5  # of a new background for an image whose foreground is known


class Augmentation:
    """Samples augmentation parameters for a list of images and applies them.

    With segmented foregrounds it is copy-paste augmentation (Dwibedi 2017): a foreground is composited onto another
    background.
    """

    def __init__(
        self, images: list[np.ndarray], foregrounds: Foregrounds, kind: str = "room", labels: tuple[str, ...] = ()
    ):
        """Store the images; nothing is copied.

        Args:
            images: Images, uint8 [H, W, 3], BGR, any size.
            foregrounds: Segmented foregrounds of the images, in the same order.
            kind: `room` (everything that another room changes), `light` (slight changes of position and light) or
                `none`.
            labels: Names of the labels.
        """
        self.images = images
        self.foregrounds = foregrounds
        self.kind = kind
        self._labels = labels

    def __add__(self, other: Augmentation) -> Augmentation:
        return Augmentation(self.images + other.images, self.foregrounds + other.foregrounds, self.kind, self._labels)

    def __call__(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Return an augmented copy of image `index`, of the same shape. Takes 1 to 3 ms for 224x224."""
        return self.apply(self.sample(index, rng))

    def sample(self, index: int, rng: np.random.Generator) -> AugmentParams:
        """Sample the parameters for image `index`."""
        if self.kind != "room":
            return AugmentParams(index, (sample_slight_transform(rng),) if self.kind == "light" else ())
        num_backgrounds = len(self.foregrounds.backgrounds)
        if num_backgrounds and rng.random() < BACKGROUND_PROBABILITY:
            if self.foregrounds.masks[index] is not None:
                foreground = sample_foreground_transform(rng)
                return AugmentParams(index, foreground=foreground, background=sample_background(rng, num_backgrounds))
            if self.foregrounds.is_background_label[index]:
                return AugmentParams(index, background=sample_background(rng, num_backgrounds))
        transform = sample_image_transform(rng)
        second = (sample_image_transform(rng),) if rng.random() < 0.5 else ()
        return AugmentParams(index, (transform, *second))

    def sample_outlier(self, rng: np.random.Generator) -> AugmentParams:
        """Sample a bare background, which belongs to no label, for outlier exposure (Hendrycks 2019).

        It takes the shape of a random image.
        """
        index = int(rng.integers(len(self.images)))
        return AugmentParams(index, background=sample_background(rng, len(self.foregrounds.backgrounds)))

    @property
    def has_outliers(self) -> bool:
        """True if `sample_outlier` applies: backgrounds are known, and no label stands for the bare background."""
        has_backgrounds = self.kind == "room" and bool(self.foregrounds.backgrounds)
        shows_background = bool(self.foregrounds.is_background_label.any())
        return has_backgrounds and not has_background_label(self._labels, shows_background)

    def apply(self, params: AugmentParams) -> np.ndarray:
        """Return the augmented image, uint8 [H, W, 3] BGR, of the shape of image `params.index`."""
        image = self.images[params.index]
        for transform in params.transforms:
            image = apply_transform(image, transform)
        if params.background is None:
            return image
        background = self._background(params.background, image.shape)
        if params.foreground is None:
            return background
        return self._composite(image, self.foregrounds.masks[params.index], params.foreground, background)

    def preview(self, rng: np.random.Generator, rows: int = 6, columns: int = 8, size: int = 224) -> np.ndarray:
        """Return one image, uint8 BGR, that shows the augmentation.

        Each row holds an original and then augmented copies of it, each `size` pixels wide and high.
        """
        lines = []
        for index in np.linspace(0, len(self.images) - 1, rows).round().astype(int):
            cells = [self.images[index], *(self(index, rng) for _ in range(columns - 1))]
            lines.append(np.hstack([cv2.resize(image, (size, size)) for image in cells]))
        return np.vstack(lines)

    def _background(self, background: Background, shape: tuple[int, ...]) -> np.ndarray:
        image = apply_transform(self._oriented(background.base, shape), background.transform)
        if background.overlay is not None:
            image = cv2.addWeighted(image, 0.5, self._oriented(background.overlay, shape), 0.5, 0)
        return image

    def _oriented(self, oriented: OrientedBackground, shape: tuple[int, ...]) -> np.ndarray:
        images = clutter_images() if oriented.is_clutter else self.foregrounds.backgrounds
        image = np.rot90(images[oriented.index], oriented.quarter_turns)
        image = np.ascontiguousarray(image[:, ::-1] if oriented.flipped else image)
        return cv2.resize(image, (shape[1], shape[0]))

    def _composite(
        self, image: np.ndarray, mask: np.ndarray, transform: ForegroundTransform, background: np.ndarray
    ) -> np.ndarray:
        """Composite the transformed foreground of an image onto a background."""
        height, width = image.shape[:2]
        mask = cv2.resize(mask, (width, height))
        layers = np.dstack([image, (255 * mask).astype(np.uint8)])
        layers = cv2.warpAffine(layers, transform.affine.matrix(width, height), (width, height), borderValue=0)
        foreground, mask = np.ascontiguousarray(layers[..., :3]), layers[..., 3:].astype(np.float32) / 255
        if transform.gains is not None:
            levels = np.arange(256)[:, None] * transform.gains
            foreground = cv2.LUT(foreground, np.clip(levels, 0, 255).astype(np.uint8)[None])
        composited = (foreground * mask + background * (1 - mask)).astype(np.uint8)
        return _blur(composited, transform.blur_sigma)


def apply_transform(image: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Return a transformed copy of an image.

    Args:
        image: Image, uint8 [H, W, 3], BGR.
        transform: Changes of the image.

    Returns:
        uint8 [H, W, 3], BGR, of the same shape.
    """
    height, width = image.shape[:2]
    image = cv2.warpAffine(
        image,
        transform.affine.matrix(width, height),
        (width, height),
        borderMode=transform.border_mode,
        borderValue=transform.border_color.tolist(),
    )
    if transform.color_jitter is not None:
        image = apply_color_jitter(image, transform.color_jitter)
    image = _blur(image, transform.blur_sigma)
    if transform.noise_sigma:
        cv2.setRNGSeed(transform.noise_seed)
        # The stubs know no scalars.
        noise = cv2.randn(np.empty(image.shape, np.int16), (0, 0, 0), (transform.noise_sigma, 0, 0))  # type: ignore[call-overload]
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if transform.occluder is not None and transform.occluder_color is not None:
        top, left, tall, wide = (np.array(transform.occluder) * (height, width, height, width)).astype(int)
        image[top : top + tall, left : left + wide] = transform.occluder_color
    return image


def apply_color_jitter(image: np.ndarray, jitter: ColorJitter) -> np.ndarray:
    """Return an image, uint8 [H, W, 3] BGR, with changed colors, as a lookup table for each channel gives them."""
    if jitter.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mean = np.array(cv2.mean(image)[:3])
    levels = np.arange(256)[:, None] * jitter.gains  # [level, channel]
    levels = np.clip((levels - mean) * jitter.contrast + mean * jitter.brightness, 0, 255)
    levels = 255 * (levels / 255) ** jitter.gamma
    return cv2.LUT(image, levels.astype(np.uint8)[None])


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image by `sigma`, given in pixels of an image 224 high."""
    return cv2.GaussianBlur(image, (0, 0), sigma * image.shape[0] / 224) if sigma else image
