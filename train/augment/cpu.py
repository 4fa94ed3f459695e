"""Augmentation, for training alone: what another room, another person and another camera would change.

The background; position, distance, tilt and shape of what is shown; light, color and contrast; focus and noise;
something in the way. No flip: a label may be about a side, and nobody was asked.
"""

from __future__ import annotations

import cv2
import numpy as np

from teachcam.train.augment.clutter import clutters
from teachcam.train.augment.foreground import Foregrounds
from teachcam.train.augment.params import (
    AugmentParams,
    Background,
    ColorJitter,
    ImageTransform,
    OrientedBackground,
    sample_background,
    sample_foreground_transform,
    sample_image_transform,
    sample_slight_transform,
)

KINDS = ("room", "light", "none")
ELSEWHERE = 0.5  # how often a frame whose foreground is known gets another background


class Augmentation:
    """Frames (uint8 BGR, any size) as training shows them: another way each time.

    `kind` is `room`, all that another room would change; `light`, a little of position and light, as the tutorials
    have it; or `none`.
    """

    def __init__(self, frames: list[np.ndarray], foregrounds: Foregrounds, kind: str = "room"):
        self.frames = frames
        self.foregrounds = foregrounds
        self.kind = kind

    def __add__(self, other: Augmentation) -> Augmentation:
        return Augmentation(self.frames + other.frames, self.foregrounds + other.foregrounds, self.kind)

    def __call__(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Return a changed copy of frame `index`, of the same shape. 1 to 3 ms for 224x224."""
        return self.show(self.plan(index, rng))

    def plan(self, index: int, rng: np.random.Generator) -> AugmentParams:
        """Draw how frame `index` is to be shown."""
        if self.kind != "room":
            return AugmentParams(index, (sample_slight_transform(rng),) if self.kind == "light" else ())
        backgrounds = len(self.foregrounds.backgrounds)
        if backgrounds and rng.random() < ELSEWHERE:
            if self.foregrounds.masks[index] is not None:
                return AugmentParams(
                    index, front=sample_foreground_transform(rng), backdrop=sample_background(rng, backgrounds)
                )
            if self.foregrounds.empty[index]:
                return AugmentParams(index, backdrop=sample_background(rng, backgrounds))
        change = sample_image_transform(rng)
        return AugmentParams(index, (change, sample_image_transform(rng)) if rng.random() < 0.5 else (change,))

    def sample_outlier(self, rng: np.random.Generator) -> AugmentParams:
        """Draw a picture of no label, of the shape of one of the frames."""
        return AugmentParams(
            int(rng.integers(len(self.frames))), backdrop=sample_background(rng, len(self.foregrounds.backgrounds))
        )

    @property
    def has_outliers(self) -> bool:
        """Whether it can draw pictures of no label: where backgrounds are known, and are no label of their own."""
        room = self.kind == "room" and bool(self.foregrounds.backgrounds)
        return room and not self.foregrounds.empty.any()

    def show(self, plan: AugmentParams) -> np.ndarray:
        """Return the frame as it was planned, uint8 BGR."""
        frame = self.frames[plan.index]
        for change in plan.changes:
            frame = apply_transform(frame, change)
        if plan.backdrop is None:
            return frame
        picture = self._backdrop(plan.backdrop, frame.shape)
        return picture if plan.front is None else self._before(frame, plan, picture)

    def picture(self, rng: np.random.Generator, rows: int = 6, columns: int = 8, side: int = 224) -> np.ndarray:
        """Return a picture, uint8 BGR: a row for each of a few frames, itself first, then as it was changed."""
        lines = []
        for index in np.linspace(0, len(self.frames) - 1, rows).round().astype(int):
            shown = [self.frames[index], *(self(index, rng) for _ in range(columns - 1))]
            lines.append(np.hstack([cv2.resize(frame, (side, side)) for frame in shown]))
        return np.vstack(lines)

    def _backdrop(self, backdrop: Background, shape: tuple[int, ...]) -> np.ndarray:
        picture = apply_transform(self._turned(backdrop.picture, shape), backdrop.change)
        if backdrop.over is not None:
            picture = cv2.addWeighted(picture, 0.5, self._turned(backdrop.over, shape), 0.5, 0)
        return picture

    def _turned(self, turned: OrientedBackground, shape: tuple[int, ...]) -> np.ndarray:
        picture = np.rot90(
            (clutters() if turned.clutter else self.foregrounds.backgrounds)[turned.index], turned.quarters
        )
        picture = np.ascontiguousarray(picture[:, ::-1] if turned.flipped else picture)
        return cv2.resize(picture, (shape[1], shape[0]))

    def _before(self, frame: np.ndarray, plan: AugmentParams, backdrop: np.ndarray) -> np.ndarray:
        """Show the front of a frame, moved and in another light, before a backdrop."""
        height, width = frame.shape[:2]
        mask = cv2.resize(self.foregrounds.masks[plan.index], (width, height))
        layers = np.dstack([frame, (255 * mask).astype(np.uint8)])
        layers = cv2.warpAffine(layers, plan.front.move.matrix(width, height), (width, height), borderValue=0)
        front, mask = np.ascontiguousarray(layers[..., :3]), layers[..., 3:].astype(np.float32) / 255
        if plan.front.gains is not None:
            levels = np.arange(256)[:, None] * plan.front.gains
            front = cv2.LUT(front, np.clip(levels, 0, 255).astype(np.uint8)[None])
        frame = (front * mask + backdrop * (1 - mask)).astype(np.uint8)
        return _blurred(frame, plan.front.blur)


def apply_transform(frame: np.ndarray, change: ImageTransform) -> np.ndarray:
    """Return a changed copy of a frame, uint8 [H, W, 3] BGR, of the same shape."""
    height, width = frame.shape[:2]
    frame = cv2.warpAffine(
        frame,
        change.move.matrix(width, height),
        (width, height),
        borderMode=change.border,
        borderValue=change.color.tolist(),
    )
    if change.light is not None:
        frame = apply_color_jitter(frame, change.light)
    frame = _blurred(frame, change.blur)
    if change.noise:
        cv2.setRNGSeed(change.seed)
        noise = cv2.randn(np.empty(frame.shape, np.int16), (0, 0, 0), (change.noise, 0, 0))
        frame = cv2.add(frame, noise, dtype=cv2.CV_8U)
    if change.cover is not None:
        top, left, high, wide = (np.array(change.cover) * (height, width, height, width)).astype(int)
        frame[top : top + high, left : left + wide] = change.cover_color
    return frame


def apply_color_jitter(frame: np.ndarray, light: ColorJitter) -> np.ndarray:
    """Return a frame, uint8 [H, W, 3] BGR, in another light."""
    if light.gray:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mean = np.array(cv2.mean(frame)[:3])
    levels = np.arange(256)[:, None] * light.gains  # [level, channel]
    levels = np.clip((levels - mean) * light.contrast + mean * light.brightness, 0, 255)
    levels = 255 * (levels / 255) ** light.gamma
    return cv2.LUT(frame, levels.astype(np.uint8)[None])


def _blurred(frame: np.ndarray, blur: float) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), blur * frame.shape[0] / 224) if blur else frame
