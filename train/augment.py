"""Augmentation, for training alone: what another room, another person and another camera would change.

The background; position, distance, tilt and shape of what is shown; light, colour and contrast; focus and noise;
something in the way. No flip: a label may be about a side, and nobody was asked.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from train.foreground import Foregrounds

BORDERS = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)
KINDS = ("room", "light", "none")
ELSEWHERE = 0.5  # how often a frame whose foreground is known gets another background
CLUTTERS = 64  # pictures of clutter to choose from


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
        frame = self.frames[index]
        if self.kind != "room":
            return augment_lightly(frame, rng) if self.kind == "light" else frame
        if self.foregrounds.backgrounds and rng.random() < ELSEWHERE:
            if (mask := self.foregrounds.masks[index]) is not None:
                return self._elsewhere(frame, mask, rng)
            if self.foregrounds.empty[index]:
                return self._background(frame.shape, rng)
        frame = augment(frame, rng)
        return augment(frame, rng) if rng.random() < 0.5 else frame

    def picture(self, rng: np.random.Generator, rows: int = 6, columns: int = 8, side: int = 224) -> np.ndarray:
        """Return a picture, uint8 BGR: a row for each of a few frames, itself first, then as it was changed."""
        lines = []
        for index in np.linspace(0, len(self.frames) - 1, rows).round().astype(int):
            shown = [self.frames[index], *(self(index, rng) for _ in range(columns - 1))]
            lines.append(np.hstack([cv2.resize(frame, (side, side)) for frame in shown]))
        return np.vstack(lines)

    @property
    def knows_nothing(self) -> bool:
        """Whether it can draw pictures of no label: where backgrounds are known, and are no label of their own."""
        return bool(self.foregrounds.backgrounds) and not self.foregrounds.empty.any()

    def nothing(self, rng: np.random.Generator) -> np.ndarray:
        """Return a picture of no label, of the shape of one of the frames."""
        return self._background(self.frames[rng.integers(len(self.frames))].shape, rng)

    def _background(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Another scene's background, or clutter; any side up, changed as frames are."""
        choices = self.foregrounds.backgrounds if rng.random() < 0.4 else clutters()
        size = shape[1], shape[0]
        picture = augment(cv2.resize(_turned(choices[rng.integers(len(choices))], rng), size), rng)
        if rng.random() < 0.3:
            other = cv2.resize(_turned(clutters()[rng.integers(CLUTTERS)], rng), size)
            picture = cv2.addWeighted(picture, 0.5, other, 0.5, 0)
        return picture

    def _elsewhere(self, frame: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The foreground, moved and in another light, before another background."""
        height, width = frame.shape[:2]
        layers = np.dstack([frame, (255 * cv2.resize(mask, (width, height))).astype(np.uint8)])
        layers = _move(layers, rng, cv2.BORDER_CONSTANT, reach=1.3)
        front, mask = np.ascontiguousarray(layers[..., :3]), layers[..., 3:].astype(np.float32) / 255
        if rng.random() < 0.8:
            levels = np.arange(256)[:, None] * rng.uniform(0.8, 1.2, 3) * rng.uniform(0.6, 1.5)
            front = cv2.LUT(front, np.clip(levels, 0, 255).astype(np.uint8)[None])
        frame = (front * mask + self._background(frame.shape, rng) * (1 - mask)).astype(np.uint8)
        return _blur(frame, rng) if rng.random() < 0.3 else frame


def augment(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a changed copy of a frame, uint8 [H, W, 3] BGR, of the same shape, with its own background."""
    frame = _move(frame, rng, BORDERS[rng.integers(len(BORDERS))])
    if rng.random() < 0.8:
        frame = _relight(frame, rng)
    if rng.random() < 0.25:
        frame = _blur(frame, rng)
    if rng.random() < 0.3:
        cv2.setRNGSeed(int(rng.integers(2**31)))
        noise = cv2.randn(np.empty(frame.shape, np.int16), 0, rng.uniform(2, 10))
        frame = cv2.add(frame, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        _cover(frame, rng)
    return frame


def augment_lightly(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a frame, uint8 [H, W, 3] BGR, a little moved, and in a little other light."""
    frame = _move(frame, rng, cv2.BORDER_REFLECT_101, reach=0.3)
    levels = np.arange(256)[:, None] * rng.uniform(0.9, 1.1, 3) + rng.uniform(-12, 12)
    return cv2.LUT(frame, np.clip(levels, 0, 255).astype(np.uint8)[None])


@cache
def clutters() -> list[np.ndarray]:
    """Return the pictures of clutter, the same in every run: over a second to draw, so only once and when needed."""
    rng = np.random.default_rng(0)
    return [clutter(rng) for _ in range(CLUTTERS)]


def clutter(rng: np.random.Generator, side: int = 224) -> np.ndarray:
    """Draw a crowded picture, uint8 [side, side, 3]: shapes of all sizes over one another, stripes, light and shade."""
    picture = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for _ in range(rng.integers(15, 90)):
        radius = np.exp(rng.uniform(np.log(5), np.log(70)))
        colour = rng.integers(0, 256, 3).astype(float)
        colour = tuple(colour.mean() + (colour - colour.mean()) * rng.random())
        x, y = (int(value) for value in rng.integers(0, side, 2))
        angle, breadth = rng.uniform(0, 180), radius * rng.uniform(0.15, 1)
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(picture, (x, y), (int(breadth), int(radius)), angle, 0, 360, colour, -1, cv2.LINE_AA)
            continue
        if kind == 1:
            corners = np.array([x, y]) + rng.normal(0, radius, (rng.integers(3, 7), 2))
        else:
            reach = (2 * breadth, 2 * radius) if kind == 2 else (3 * radius, 3 * radius)
            corners = cv2.boxPoints(((x, y), reach, angle))
        corners = corners.astype(np.int32)
        if kind < 3:
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)
        else:  # stripes, as of a curtain
            inside = cv2.fillPoly(np.zeros((side, side), np.uint8), [corners], 1)
            across = columns * np.cos(np.deg2rad(angle)) + rows * np.sin(np.deg2rad(angle))
            picture[(inside > 0) & (across // rng.integers(3, 16) % 2 > 0)] = colour
    texture = cv2.resize(rng.normal(0, 25 * rng.random(), (side // 4, side // 4, 3)), (side, side))
    light = cv2.resize(rng.uniform(0.45, 1.4, (3, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    picture = np.clip((picture + texture) * light[..., None], 0, 255).astype(np.uint8)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 3))


def _turned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(picture, rng.integers(4)) if rng.random() < 0.5 else picture[:, ::-1])


def _move(frame: np.ndarray, rng: np.random.Generator, border: int, reach: float = 1.0) -> np.ndarray:
    """Shift, scale, stretch and tilt; what comes into view is mirrored, drawn out, or of one colour."""
    height, width = frame.shape[:2]
    scale, tilt = 1 + reach * rng.uniform(-0.25, 0.25), rng.uniform(-15, 15)
    stretch = np.exp(min(reach, 1.0) * rng.uniform(-0.1, 0.1))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), reach * tilt, scale)
    matrix[0, :2] *= stretch
    matrix[1, :2] /= stretch
    middle = np.array([width / 2, height / 2])
    target = middle + min(reach, 1.0) * rng.uniform(-0.15, 0.15, 2) * (width, height)
    matrix[:, 2] = target - matrix[:, :2] @ middle
    colour = [*rng.integers(0, 256, 3).tolist(), 0]  # the fourth channel is a mask
    return cv2.warpAffine(frame, matrix, (width, height), borderMode=border, borderValue=colour)


def _relight(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change tint, contrast, brightness and gamma; at times there is no colour at all."""
    if rng.random() < 0.15:
        frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    levels = np.arange(256)[:, None] * rng.uniform(0.75, 1.25, 3)  # [level, channel]
    mean = np.array(cv2.mean(frame)[:3])
    levels = (levels - mean) * rng.uniform(0.6, 1.4) + mean * rng.uniform(0.6, 1.4)
    levels = np.clip(levels, 0, 255)
    if rng.random() < 0.3:
        levels = 255 * (levels / 255) ** np.exp(rng.uniform(-0.5, 0.5))
    return cv2.LUT(frame, levels.astype(np.uint8)[None])


def _blur(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.5, 2) * frame.shape[0] / 224)


def _cover(frame: np.ndarray, rng: np.random.Generator) -> None:
    """Put a rectangle of one colour over a part of the frame."""
    height, width = frame.shape[:2]
    h, w = int(height * rng.uniform(0.12, 0.33)), int(width * rng.uniform(0.12, 0.33))
    y, x = rng.integers(0, height - h), rng.integers(0, width - w)
    frame[y : y + h, x : x + w] = rng.integers(0, 256, 3)
