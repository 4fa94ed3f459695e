"""The augmentation of `train/augment.py`, many frames at once where the network runs: a GPU is not kept waiting.

The frames lie on the device as uint8, decoded and resized once. What is drawn is the same, to the last number; how it
is shown differs by rounding, interpolation and the noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.clutter import clutters
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.params import CONSTANT, REFLECT, AugmentParams, ImageTransform, OrientedBackground

SHARE = 0.3  # of the device's free memory that frames may take
GRAY = (0.114, 0.587, 0.299)  # of blue, green, red


class DeviceAugmentation:
    """Shows plans of an Augmentation, in the contract's size and colors."""

    def __init__(self, augmentation: Augmentation, contract: Contract, device: torch.device):
        self._contract, self._device = contract, device
        # In color to the end, where a gray contract has its say; BGR or RGB from the start.
        self._order = [0, 1, 2] if contract.color_order == "BGR" else [2, 1, 0]
        self._frames = self._stack(augmentation.frames)
        self._shapes = [frame.shape[1::-1] for frame in augmentation.frames]  # width, height
        found = augmentation.foregrounds
        kept = [index for index, mask in enumerate(found.masks) if mask is not None]
        self._mask_of = {index: place for place, index in enumerate(kept)}
        self._masks = torch.from_numpy(np.array([found.masks[index] for index in kept], np.float32)).to(device)
        self._backgrounds = self._stack(found.backgrounds)
        self._clutters = self._stack(clutters()) if found.backgrounds else self._backgrounds

    @staticmethod
    def fits(augmentation: Augmentation, contract: Contract, device: torch.device) -> bool:
        """Say whether the frames find room on a device."""
        size = len(augmentation.frames) * 3 * contract.input_size[0] * contract.input_size[1]
        return device.type == "cuda" and size < SHARE * torch.cuda.mem_get_info(device)[0]

    def __call__(self, plans: list[AugmentParams], size: tuple[int, int]) -> torch.Tensor:
        """Return the frames as planned, uint8 [n, *size, 3], as `preprocess` would give them."""
        pictures = self._frames[[plan.index for plan in plans]].permute(0, 3, 1, 2).float()
        for turn in range(max(len(plan.changes) for plan in plans)):
            own = [row for row, plan in enumerate(plans) if len(plan.changes) > turn]
            shapes = [self._shapes[plans[row].index] for row in own]
            pictures[own] = self._changed(pictures[own], [plans[row].changes[turn] for row in own], shapes)
        if rows := [row for row, plan in enumerate(plans) if plan.backdrop is not None]:
            self._put_backdrops(pictures, plans, rows)
        if size != pictures.shape[2:]:
            pictures = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        if self._contract.color_order == "GRAY":
            pictures = self._gray(pictures).expand(-1, 3, -1, -1)
        return pictures.round().clamp(0, 255).byte().permute(0, 2, 3, 1)

    def _stack(self, pictures: list[np.ndarray]) -> torch.Tensor:
        height, width = self._contract.input_size
        plain = Contract(labels=(), input_size=(height, width), color_order="RGB" if self._order[0] else "BGR")
        prepared = [preprocess(picture, plain) for picture in pictures]
        return torch.from_numpy(np.array(prepared, np.uint8).reshape(-1, height, width, 3)).to(self._device)

    def _numbers(self, values: list, *shape: int) -> torch.Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=self._device).view(-1, *shape)

    def _colors(self, values: list) -> torch.Tensor:
        """Return BGR values as float32 [n, 3, 1, 1] in the device's order."""
        return self._numbers(values, 3, 1, 1)[:, self._order]

    def _gray(self, pictures: torch.Tensor) -> torch.Tensor:
        return (pictures * self._colors([GRAY])).sum(1, keepdim=True)

    def _put_backdrops(self, pictures: torch.Tensor, plans: list[AugmentParams], rows: list[int]) -> None:
        backdrops, shapes = [plans[row].backdrop for row in rows], [self._shapes[plans[row].index] for row in rows]
        behind = self._turned([backdrop.picture for backdrop in backdrops])
        behind = self._changed(behind, [backdrop.change for backdrop in backdrops], shapes)
        if over := [place for place, backdrop in enumerate(backdrops) if backdrop.over is not None]:
            behind[over] = (behind[over] + self._turned([backdrops[place].over for place in over])) / 2
        if own := [place for place, row in enumerate(rows) if plans[row].front is not None]:
            fronts = [plans[rows[place]].front for place in own]
            masks = self._masks[[self._mask_of[plans[rows[place]].index] for place in own], None]
            masks = functional.interpolate(masks, pictures.shape[2:], mode="bilinear")
            front = pictures[[rows[place] for place in own]]
            moves = [front.move for front in fronts], [shapes[place] for place in own]
            layers = self._moved(torch.cat([front, masks], 1), *moves, [CONSTANT] * len(own))
            gains = self._colors([np.ones(3) if front.gains is None else front.gains for front in fronts])
            front, masks = (layers[:, :3] * gains).clamp(max=255), layers[:, 3:]
            shown = front * masks + behind[own] * (1 - masks)
            behind[own] = self._blurred(shown, [front.blur for front in fronts])
        pictures[rows] = behind

    def _turned(self, wanted: list[OrientedBackground]) -> torch.Tensor:
        stacked = []
        for one in wanted:
            picture = (self._clutters if one.clutter else self._backgrounds)[one.index]
            picture = torch.rot90(picture, one.quarters, (0, 1))
            stacked.append(picture.flip(1) if one.flipped else picture)
        height, width = self._contract.input_size
        if height != width:  # a turned one lies on its side
            return torch.cat([_resized(picture, (height, width)) for picture in stacked])
        return torch.stack(stacked).permute(0, 3, 1, 2).float()

    def _changed(
        self, pictures: torch.Tensor, changes: list[ImageTransform], shapes: list[tuple[int, int]]
    ) -> torch.Tensor:
        colors = self._colors([change.color for change in changes])
        moves = [change.move for change in changes]
        pictures = self._moved(pictures, moves, shapes, [change.border for change in changes], colors)
        if lit := [row for row, change in enumerate(changes) if change.light is not None]:
            pictures[lit] = self._relit(pictures[lit], [changes[row].light for row in lit])
        pictures = self._blurred(pictures, [change.blur for change in changes])
        if noisy := [row for row, change in enumerate(changes) if change.noise]:
            blue, sigmas = self._order.index(0), self._numbers([changes[row].noise for row in noisy], 1, 1)
            level = pictures[noisy, blue]
            pictures[noisy, blue] = (level + torch.randn_like(level) * sigmas).clamp(0, 255)
        height, width = pictures.shape[2:]
        for row, change in enumerate(changes):
            if change.cover is not None:
                top, left, high, wide = (np.array(change.cover) * (height, width, height, width)).astype(int).tolist()
                color = change.cover_color[self._order].tolist()
                for channel, level in enumerate(color):
                    pictures[row, channel, top : top + high, left : left + wide] = level
        return pictures

    def _moved(self, pictures, moves, shapes, borders, colors=None) -> torch.Tensor:
        """Move pictures as their originals, of (width, height) `shapes`, would be; outside is `colors`, or 0."""
        height, width = pictures.shape[2:]
        matrices = []
        for move, (own_width, own_height) in zip(moves, shapes, strict=True):
            matrix = np.vstack([move.matrix(own_width, own_height), [0, 0, 1]])
            scale = np.diag([width / own_width, height / own_height, 1])
            matrices.append(np.linalg.inv(scale @ matrix @ np.linalg.inv(scale)))
        matrices = self._numbers(matrices, 3, 3)
        y, x = torch.meshgrid(
            *(torch.arange(side, device=self._device, dtype=torch.float32) for side in (height, width)), indexing="ij"
        )
        points = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
        places = (matrices @ points)[:, :2].view(-1, 2, height, width)
        ends = torch.tensor([width - 1, height - 1], device=self._device).view(1, 2, 1, 1)
        kinds = torch.tensor(borders, device=self._device).view(-1, 1, 1, 1)
        mirrored = ends - ((places.abs() % (2 * ends)) - ends).abs()
        inside = ((places > -1) & (places < ends + 1)).all(1, keepdim=True)
        places = torch.where(kinds == REFLECT, mirrored, places)
        grid = (2 * places / ends - 1).permute(0, 2, 3, 1)
        moved = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=True)
        outside = torch.zeros_like(moved) if colors is None else colors.expand_as(moved)
        return torch.where((kinds == CONSTANT) & ~inside, outside, moved)

    def _relit(self, pictures: torch.Tensor, lights: list) -> torch.Tensor:
        gray = torch.tensor([light.gray for light in lights], device=self._device).view(-1, 1, 1, 1)
        pictures = torch.where(gray, self._gray(pictures), pictures)
        mean = pictures.mean((2, 3), keepdim=True)
        contrast, brightness, gamma = (
            self._numbers([getattr(light, name) for light in lights], 1, 1, 1)
            for name in ("contrast", "brightness", "gamma")
        )
        gains = self._colors([light.gains for light in lights])
        levels = ((pictures * gains - mean) * contrast + mean * brightness).clamp(0, 255)
        return 255 * (levels / 255) ** gamma

    def _blurred(self, pictures: torch.Tensor, blurs: list[float]) -> torch.Tensor:
        rows = [row for row, blur in enumerate(blurs) if blur]
        if not rows:
            return pictures
        height, width = pictures.shape[2:]
        sigmas = self._numbers([blurs[row] * height / 224 for row in rows], 1)
        reach = min(int(np.ceil(3 * 2 * height / 224)), height - 1, width - 1)
        steps = torch.arange(-reach, reach + 1, device=self._device)
        kernels = torch.softmax(-(steps**2) / (2 * sigmas**2), 1).repeat_interleave(3, 0)[:, None]
        blurred = functional.pad(pictures[rows].reshape(1, -1, height, width), (reach,) * 4, mode="reflect")
        blurred = functional.conv2d(blurred, kernels[..., None, :], groups=len(kernels))
        blurred = functional.conv2d(blurred, kernels[..., None], groups=len(kernels))
        pictures[rows] = blurred.view(-1, 3, height, width)
        return pictures


def _resized(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(picture.permute(2, 0, 1)[None].float(), size, mode="bilinear")
