"""Augment whole batches with PyTorch on the device that trains, so that a GPU does not wait for the CPU.

The images lie on the device as uint8, decoded and resized once. It applies the same AugmentParams as `augment/cpu.py`.
Results differ by rounding, interpolation and the random values of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from teachcam.clutter import clutter_images
from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.params import (
    CONSTANT,
    REFLECT,
    Affine,
    AugmentParams,
    ColorJitter,
    ImageTransform,
    OrientedBackground,
)

MAX_MEMORY_FRACTION = 0.3  # of the device's free memory, for the images
BGR_TO_GRAY = (0.114, 0.587, 0.299)  # ITU-R BT.601, as in OpenCV


class GpuAugmentation:
    """Applies parameters that an Augmentation sampled to batches of its images, in the contract's size and colors."""

    def __init__(self, augmentation: Augmentation, contract: Contract, device: torch.device):
        """Copy the images, masks and backgrounds to the device.

        Args:
            augmentation: Has the images and foregrounds.
            contract: Input size and color order of the results.
            device: Where the images lie and the work is done.
        """
        self._contract, self._device = contract, device
        # Channels are BGR or RGB from the start. A gray contract keeps color until all transforms are applied.
        self._channel_order = [0, 1, 2] if contract.color_order == "BGR" else [2, 1, 0]
        self._images = self._stack(augmentation.images)
        self._original_sizes = [image.shape[1::-1] for image in augmentation.images]  # width, height
        foregrounds = augmentation.foregrounds
        with_mask = [index for index, mask in enumerate(foregrounds.masks) if mask is not None]
        self._mask_row = {index: row for row, index in enumerate(with_mask)}
        self._masks = torch.from_numpy(np.array([foregrounds.masks[index] for index in with_mask], np.float32))
        self._masks = self._masks.to(device)
        self._backgrounds = self._stack(foregrounds.backgrounds)
        self._clutter = self._stack(clutter_images()) if foregrounds.backgrounds else self._backgrounds

    @staticmethod
    def fits(augmentation: Augmentation, contract: Contract, device: torch.device) -> bool:
        """Return whether `device` is a GPU with enough free memory for the images."""
        num_bytes = len(augmentation.images) * 3 * contract.input_size[0] * contract.input_size[1]
        return device.type == "cuda" and num_bytes < MAX_MEMORY_FRACTION * torch.cuda.mem_get_info(device)[0]

    def __call__(self, batch: list[AugmentParams], size: tuple[int, int]) -> torch.Tensor:
        """Return the augmented images as `preprocess` would return them.

        Args:
            batch: Parameters of each image.
            size: Height and width of the results in pixels.

        Returns:
            uint8 [len(batch), height, width, 3] on the device, in the contract's color order.
        """
        images = self._images[[params.index for params in batch]].permute(0, 3, 1, 2).float()
        for step in range(max(len(params.transforms) for params in batch)):
            rows = [row for row, params in enumerate(batch) if len(params.transforms) > step]
            sizes = [self._original_sizes[batch[row].index] for row in rows]
            images[rows] = self._transform(images[rows], [batch[row].transforms[step] for row in rows], sizes)
        if rows := [row for row, params in enumerate(batch) if params.background is not None]:
            images[rows] = self._composite(images, batch, rows)
        if size != images.shape[2:]:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        if self._contract.color_order == "GRAY":
            images = self._to_gray(images).expand(-1, 3, -1, -1)
        return images.round().clamp(0, 255).byte().permute(0, 2, 3, 1)

    def _stack(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Return images in the contract's size, uint8 [N, H, W, 3], in color."""
        height, width = self._contract.input_size
        color_order = "RGB" if self._channel_order[0] else "BGR"
        in_color = Contract(labels=(), input_size=(height, width), color_order=color_order)
        stacked = torch.empty((len(images), height, width, 3), dtype=torch.uint8, device=self._device)
        for index, image in enumerate(images):  # one by one: the computer's memory may be smaller than the GPU's
            stacked[index] = torch.from_numpy(preprocess(image, in_color))
        return stacked

    def _tensor(self, values: list, *shape: int) -> torch.Tensor:
        """Return values, one entry for each image, as float32 [N, *shape] on the device."""
        return torch.tensor(np.array(values), dtype=torch.float32, device=self._device).view(-1, *shape)

    def _colors(self, bgr: list) -> torch.Tensor:
        """Return BGR values as float32 [N, 3, 1, 1] in this object's channel order."""
        return self._tensor(bgr, 3, 1, 1)[:, self._channel_order]

    def _to_gray(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self._colors([BGR_TO_GRAY])).sum(1, keepdim=True)

    def _composite(self, images: torch.Tensor, batch: list[AugmentParams], rows: list[int]) -> torch.Tensor:
        """Return the backgrounds of these rows of the batch, with their foregrounds on them."""
        params_of_rows = [batch[row] for row in rows]
        backgrounds = [params.background for params in params_of_rows if params.background is not None]  # all have one
        sizes = [self._original_sizes[params.index] for params in params_of_rows]
        result = self._oriented([background.base for background in backgrounds])
        result = self._transform(result, [background.transform for background in backgrounds], sizes)
        if overlaid := [place for place, background in enumerate(backgrounds) if background.overlay is not None]:
            overlays = self._oriented([one.overlay for one in backgrounds if one.overlay is not None])
            result[overlaid] = (result[overlaid] + overlays) / 2
        if places := [place for place, params in enumerate(params_of_rows) if params.foreground is not None]:
            transforms = [params.foreground for params in params_of_rows if params.foreground is not None]
            masks = self._masks[[self._mask_row[params_of_rows[place].index] for place in places], None]
            masks = functional.interpolate(masks, images.shape[2:], mode="bilinear")
            layers = torch.cat([images[[rows[place] for place in places]], masks], 1)
            affines = [transform.affine for transform in transforms]
            layers = self._warp(layers, affines, [sizes[place] for place in places], [CONSTANT] * len(places))
            gains = [np.ones(3) if transform.gains is None else transform.gains for transform in transforms]
            foregrounds, masks = (layers[:, :3] * self._colors(gains)).clamp(max=255), layers[:, 3:]
            composited = foregrounds * masks + result[places] * (1 - masks)
            result[places] = self._blur(composited, [transform.blur_sigma for transform in transforms])
        return result

    def _oriented(self, backgrounds: list[OrientedBackground]) -> torch.Tensor:
        """Return turned or flipped backgrounds, float32 [N, 3, H, W]."""
        images = []
        for background in backgrounds:
            image = (self._clutter if background.is_clutter else self._backgrounds)[background.index]
            image = torch.rot90(image, background.quarter_turns, (0, 1))
            images.append(image.flip(1) if background.flipped else image)
        height, width = self._contract.input_size
        if height != width:  # a quarter turn exchanges height and width
            return torch.cat([_resize(image, (height, width)) for image in images])
        return torch.stack(images).permute(0, 3, 1, 2).float()

    def _transform(
        self, images: torch.Tensor, transforms: list[ImageTransform], sizes: list[tuple[int, int]]
    ) -> torch.Tensor:
        """Apply one transform to each image, float32 [N, 3, H, W]; `sizes` are the originals' (width, height)."""
        border_colors = self._colors([transform.border_color for transform in transforms])
        border_modes = [transform.border_mode for transform in transforms]
        images = self._warp(images, [transform.affine for transform in transforms], sizes, border_modes, border_colors)
        if rows := [row for row, transform in enumerate(transforms) if transform.color_jitter is not None]:
            jitters = [one.color_jitter for one in transforms if one.color_jitter is not None]
            images[rows] = self._jitter_colors(images[rows], jitters)
        images = self._blur(images, [transform.blur_sigma for transform in transforms])
        if rows := [row for row, transform in enumerate(transforms) if transform.noise_sigma]:
            blue = self._channel_order.index(0)
            sigmas = self._tensor([transforms[row].noise_sigma for row in rows], 1, 1)
            levels = images[rows, blue]
            images[rows, blue] = (levels + torch.randn_like(levels) * sigmas).clamp(0, 255)
        height, width = images.shape[2:]
        for row, transform in enumerate(transforms):
            if transform.occluder is not None and transform.occluder_color is not None:
                rectangle = np.array(transform.occluder) * (height, width, height, width)
                top, left, tall, wide = rectangle.astype(int).tolist()
                for channel, level in enumerate(transform.occluder_color[self._channel_order].tolist()):
                    images[row, channel, top : top + tall, left : left + wide] = level
        return images

    def _warp(
        self,
        images: torch.Tensor,
        affines: list[Affine],
        sizes: list[tuple[int, int]],
        border_modes: list[int],
        border_colors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Warp images as cv2.warpAffine would warp their originals.

        Args:
            images: float32 [N, C, H, W].
            affines: One transform for each image.
            sizes: Width and height of the originals.
            border_modes: How pixels from outside an image are filled.
            border_colors: float32 [N, C, 1, 1], for CONSTANT; 0 if None.
        """
        height, width = images.shape[2:]
        matrices = []
        for affine, (original_width, original_height) in zip(affines, sizes, strict=True):
            matrix = np.vstack([affine.matrix(original_width, original_height), [0, 0, 1]])
            scale = np.diag([width / original_width, height / original_height, 1])
            matrices.append(np.linalg.inv(scale @ matrix @ np.linalg.inv(scale)))
        target_to_source = self._tensor(matrices, 3, 3)
        y, x = torch.meshgrid(
            *(torch.arange(side, device=self._device, dtype=torch.float32) for side in (height, width)), indexing="ij"
        )
        targets = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
        sources = (target_to_source @ targets)[:, :2].view(-1, 2, height, width)
        last = torch.tensor([width - 1, height - 1], device=self._device).view(1, 2, 1, 1)
        modes = torch.tensor(border_modes, device=self._device).view(-1, 1, 1, 1)
        mirrored = last - ((sources.abs() % (2 * last)) - last).abs()
        inside = ((sources > -1) & (sources < last + 1)).all(1, keepdim=True)
        sources = torch.where(modes == REFLECT, mirrored, sources)
        grid = (2 * sources / last - 1).permute(0, 2, 3, 1)
        warped = functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
        outside = torch.zeros_like(warped) if border_colors is None else border_colors.expand_as(warped)
        return torch.where((modes == CONSTANT) & ~inside, outside, warped)

    def _jitter_colors(self, images: torch.Tensor, jitters: list[ColorJitter]) -> torch.Tensor:
        gray = torch.tensor([jitter.gray for jitter in jitters], device=self._device).view(-1, 1, 1, 1)
        images = torch.where(gray, self._to_gray(images), images)
        mean = images.mean((2, 3), keepdim=True)
        contrast, brightness, gamma = (
            self._tensor([getattr(jitter, name) for jitter in jitters], 1, 1, 1)
            for name in ("contrast", "brightness", "gamma")
        )
        gains = self._colors([jitter.gains for jitter in jitters])
        levels = ((images * gains - mean) * contrast + mean * brightness).clamp(0, 255)
        return 255 * (levels / 255) ** gamma

    def _blur(self, images: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
        """Blur each image by its sigma, given in pixels of an image 224 high; 0 leaves an image as it is."""
        rows = [row for row, sigma in enumerate(sigmas) if sigma]
        if not rows:
            return images
        height, width = images.shape[2:]
        scaled = self._tensor([sigmas[row] * height / 224 for row in rows], 1)
        # Three times the largest sigma that is sampled, 2; reflection needs a radius below the image's side.
        radius = min(int(np.ceil(3 * 2 * height / 224)), height - 1, width - 1)
        offsets = torch.arange(-radius, radius + 1, device=self._device)
        kernels = torch.softmax(-(offsets**2) / (2 * scaled**2), 1).repeat_interleave(3, 0)[:, None]
        blurred = functional.pad(images[rows].reshape(1, -1, height, width), (radius,) * 4, mode="reflect")
        blurred = functional.conv2d(blurred, kernels[..., None, :], groups=len(kernels))
        blurred = functional.conv2d(blurred, kernels[..., None], groups=len(kernels))
        images[rows] = blurred.view(-1, 3, height, width)
        return images


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize uint8 [h, w, 3] to float32 [1, 3, *size]."""
    return functional.interpolate(image.permute(2, 0, 1)[None].float(), size, mode="bilinear")
