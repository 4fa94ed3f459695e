"""A camera that needs no camera: hands, drawn, in a room that a seed decides.

    python collect/capture.py --camera "synthetic:thumbs_up?seed=3" --label thumbs_up --headless --count 24

A seed is a session: one room, one light, one person. Within it the hand moves, turns and changes its
distance, the camera shakes a little, and every frame has its own noise.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Iterator
from urllib.parse import parse_qsl

import cv2
import numpy as np

from teachcam.errors import UserError

LABELS = ("none", "palm", "thumbs_down", "thumbs_up")
SECONDS_PER_LABEL = 1.5  # how long each label is shown when none is asked for


def label_at(number: int, fps: float = 30.0) -> str:
    """Return the true label of frame `number` (from 0) of a `synthetic` camera that shows every label in turn."""
    return LABELS[int(number / fps / SECONDS_PER_LABEL) % len(LABELS)]


class Synthetic:
    """The source behind `synthetic[:LABEL][?seed=N&fps=F&size=WxH&numbered=1]`.

    Without LABEL it shows each of `LABELS` for `SECONDS_PER_LABEL` seconds, over and over; without a seed
    each opening is a new room. The same seed gives the same pixels. It is a live source: `read()` returns at
    its frame rate, 30 FPS unless told. With `numbered=1` every frame carries its number, which `number_in` reads.
    """

    live = True

    def __init__(
        self, options: str = "", width: int | None = None, height: int | None = None, fps: float | None = None
    ):
        label, _, query = options.partition("?")
        if label and label not in LABELS:
            raise UserError(f"the synthetic camera has no label {label!r}: it draws {', '.join(LABELS)}")
        self.label = label or None
        seed, numbered = None, False
        self.fps, width, height = fps or 30.0, width or 640, height or 480
        try:
            for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
                if key == "seed":
                    seed = int(value)
                elif key == "fps":
                    self.fps = float(value)
                elif key == "size":
                    width, height = map(int, value.split("x"))
                elif key == "numbered":
                    numbered = value == "1"
                else:
                    raise ValueError(key)
            if seed is not None and seed < 0:
                raise ValueError(seed)
            if not (0 < self.fps <= 1000 and 16 <= width <= 7680 and 16 <= height <= 4320):
                raise ValueError(query)
        except ValueError:
            raise UserError(
                f"synthetic camera options {query!r}: expected seed=N, fps=F, size=WxH and numbered=1, joined by &"
            ) from None
        frames = _frames(np.random.default_rng(seed), self.label, self.fps, width, height)
        self._frames = map(_stamp, frames, itertools.count()) if numbered else frames
        self._due = time.monotonic()

    def read(self) -> np.ndarray:
        """Return the next frame, uint8 [H, W, 3] BGR, when it is due."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        # A reader that came late (a busy machine) gets its frame at once and the clock goes on from here.
        self._due = max(self._due + 1 / self.fps, time.monotonic() - 1 / self.fps)
        return next(self._frames)

    def close(self) -> None:
        """Nothing to give back."""


def render(label: str, seed: int, count: int, width: int = 640, height: int = 480) -> np.ndarray:
    """Return `count` frames of one session at once, uint8 [count, height, width, 3] BGR, as fast as they draw."""
    frames = _frames(np.random.default_rng(seed), label, 30.0, width, height)
    return np.stack([next(frames) for _ in range(count)])


def number_in(image: np.ndarray) -> int:
    """Return the number that a frame of a `numbered` camera carries, uint8 [H, W, 3], JPEG-compressed or not."""
    bits = image[-_BLOCK:, : 16 * _BLOCK].reshape(_BLOCK, 16, _BLOCK, 3).mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << index for index in range(16) if bits[index]))


_BLOCK = 16  # pixels: the side of the square that is one bit of a frame's number


def _stamp(image: np.ndarray, number: int) -> np.ndarray:
    for index in range(16):
        image[-_BLOCK:, index * _BLOCK : (index + 1) * _BLOCK] = 255 if number >> index & 1 else 0
    return image


def _frames(rng: np.random.Generator, label: str | None, fps: float, width: int, height: int) -> Iterator[np.ndarray]:
    room = _room(rng, width + 32, height + 32)  # larger than the picture: the camera shakes over it
    light = _light(rng, width, height)
    noise = np.clip(rng.normal(128, rng.uniform(2, 9), (height * 2, width * 2, 3)), 0, 255).astype(np.uint8)
    person = _Person(rng)
    wander = _Wander(rng)
    number = 0
    while True:
        shown = label or label_at(number, fps)
        pose = wander.at(number / fps)
        left, top = (int(16 + 12 * pose[name]) for name in ("shake_x", "shake_y"))
        image = room[top : top + height, left : left + width].copy()
        person.draw(image, shown, pose)
        image = cv2.multiply(image, light, scale=(1 + 0.06 * pose["flicker"]) / 128)
        left, top = rng.integers(0, width), rng.integers(0, height)
        yield cv2.addWeighted(image, 1, noise[top : top + height, left : left + width], 1, -128)
        number += 1


def _room(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A wall with smooth stains, some furniture and some clutter, uint8 [height, width, 3] BGR."""
    wall = rng.integers(40, 216, 3)
    stains = (wall + wall.mean()) / 2 + rng.normal(0, 25, (5, 6, 1)) + rng.normal(0, 12, (5, 6, 3))
    room = cv2.resize(np.clip(stains, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(4, 14)):
        color = rng.integers(0, 256, 3)
        color = ((color + color.mean()) / 2).tolist()
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(20, width // 2), rng.integers(20, height // 2)
        kind = rng.integers(0, 4)
        if kind == 0:
            cv2.rectangle(room, (x, y), (x + w, y + h), color, -1)
        elif kind == 1:
            cv2.ellipse(room, (x, y), (w // 3, h // 3), rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(room, (x, y), (x + w, y - h), color, int(rng.integers(2, 24)), cv2.LINE_AA)
        else:  # something of a skin's color, so that color alone does not tell
            cv2.ellipse(room, (x, y), (w // 5, h // 4), 0, 0, 360, _skin(rng), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.6, 3.0))


def _light(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """What each pixel is multiplied by, 128 for 1: a brightness, a tint, a darker side, uint8 [height, width, 3]."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * math.pi)
    slope = 1 + rng.uniform(0, 0.35) * (x * math.cos(angle) + y * math.sin(angle))
    tint = rng.uniform(0.6, 1.2) * rng.uniform(0.88, 1.12, 3)
    return np.clip(128 * slope[..., None] * tint, 0, 255).astype(np.uint8)


def _skin(rng: np.random.Generator) -> list[float]:
    """A skin color from light to dark, BGR 0-255."""
    depth = rng.uniform(0, 1)
    light, dark = np.array([175, 200, 240.0]), np.array([40, 62, 95.0])
    return (light + depth * (dark - light) + rng.normal(0, 6, 3)).clip(0, 255).tolist()


class _Wander:
    """Smooth motion: each quantity is a sum of two slow sines of its own, within -1 to 1."""

    names = ("x", "y", "size", "turn", "bend", "shake_x", "shake_y", "flicker", "rest")

    def __init__(self, rng: np.random.Generator):
        self._rate = rng.uniform(0.8, 4.0, (len(self.names), 2))  # radians a second
        self._phase = rng.uniform(0, 2 * math.pi, (len(self.names), 2))

    def at(self, seconds: float) -> dict[str, float]:
        values = np.sin(self._rate * seconds + self._phase).mean(axis=1)
        return dict(zip(self.names, values.tolist()))


class _Person:
    """One person's hand, sleeve and habits, drawn in hand coordinates: the palm's width is 1, y points up."""

    def __init__(self, rng: np.random.Generator):
        self.skin = np.array(_skin(rng))
        self.sleeve = rng.integers(0, 256, 3).tolist()
        self.mirrored = rng.random() < 0.5  # right hand or left
        self.size = rng.uniform(0.2, 0.34)  # palm's width, of the picture's height
        self.home = rng.uniform(-0.12, 0.12, 2)  # of the picture's size, from its middle
        self.slant = rng.normal(0, 9)  # degrees: how this person holds the hand
        self.thumb = rng.uniform(0.75, 1.0)  # its length, and its width below
        self.thumb_width = rng.uniform(0.26, 0.34)
        self.fingers = rng.uniform(0.85, 1.15)
        self.spread = rng.uniform(7, 17)  # degrees between the fingers of an open palm
        self.bare = rng.uniform(0.2, 1.2)  # how much forearm the sleeve leaves

    def draw(self, image: np.ndarray, label: str, pose: dict[str, float]) -> None:
        if label == "none" and pose["rest"] < 0.3:  # else a fist rests in view, its thumb hidden
            return
        height, width = image.shape[:2]
        scale = height * self.size * (1 + 0.3 * pose["size"])
        angle = math.radians(self.slant + 22 * pose["turn"])
        along = np.array([math.cos(angle), math.sin(angle)])
        if self.mirrored:
            along[0] = -along[0]
        # The hand's two axes in picture coordinates. Thumb down is thumb up with the second axis turned over.
        across = np.array([-along[1], along[0]]) * (-1 if not self.mirrored else 1)
        if label == "thumbs_down":
            across = -across
        if label == "palm":
            along, across = np.array([along[1], -abs(along[0])]), np.array([along[0], along[1]])
        origin = np.array([width, height]) * (0.5 + self.home + 0.15 * np.array([pose["x"], pose["y"]]))
        hand = _Hand(image, origin, along * scale, across * scale, scale, self.skin)
        hand.arm(self.sleeve, self.bare)
        if label == "palm":
            self._palm(hand, pose["bend"])
        else:
            self._fist(hand, pose["bend"], thumb=label != "none")

    def _fist(self, hand: _Hand, bend: float, thumb: bool) -> None:
        if thumb:
            hand.limb((-0.1, 0.3), (0.05 + 0.15 * bend, 0.4 + self.thumb), self.thumb_width, 1.0)
        hand.limb((0, -0.18), (0, 0.18), 0.95, 0.93)
        for finger in range(4):
            y = 0.36 - 0.26 * finger
            hand.limb((-0.05, y), (0.34 + 0.03 * bend, y), 0.25, 1.0 - 0.05 * finger)

    def _palm(self, hand: _Hand, bend: float) -> None:
        for finger, length in enumerate((0.85, 1.0, 0.95, 0.7)):
            lean = math.radians((1.5 - finger) * (self.spread + 4 * bend))
            base = (0.35, 0.36 - 0.24 * finger)
            tip = (base[0] + self.fingers * length * math.cos(lean), base[1] + length * math.sin(lean))
            hand.limb(base, tip, 0.23, 1.0 - 0.03 * finger)
        hand.limb((-0.2, 0.25), (0.25 + 0.1 * bend, 0.85 * self.thumb + 0.15), self.thumb_width * 0.9, 0.97)
        hand.limb((-0.1, 0), (0.15, 0), 1.0, 0.96)


class _Hand:
    """Draws limbs (thick round lines with a darker rim) given in hand coordinates."""

    def __init__(self, image, origin, along, across, scale, skin):
        self.image, self.origin, self.along, self.across = image, origin, along, across
        self.scale, self.skin = scale, skin

    def _point(self, point) -> tuple[int, int]:
        x, y = self.origin + point[0] * self.along + point[1] * self.across
        return round(x), round(y)

    def limb(self, start, end, width: float, shade: float) -> None:
        start, end, thick = self._point(start), self._point(end), max(3, round(width * self.scale))
        rim = max(1, round(0.035 * self.scale))
        cv2.line(self.image, start, end, (self.skin * 0.68 * shade).tolist(), thick, cv2.LINE_AA)
        cv2.line(self.image, start, end, (self.skin * shade).tolist(), max(1, thick - 2 * rim), cv2.LINE_AA)

    def arm(self, sleeve, bare: float) -> None:
        self.limb((-0.3, 0), (-6, 0), 0.66, 0.9)
        start, end = self._point((-0.55 - bare, 0)), self._point((-6, 0))
        cv2.line(self.image, start, end, sleeve, round(0.85 * self.scale), cv2.LINE_AA)
