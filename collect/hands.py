"""Draw the synthetic camera's images: a hand that moves in a room, from random numbers alone.

`draw_session` is the way in. A session has one room, one light and one person.
"""

from __future__ import annotations

import itertools
import math
from typing import Iterator

import cv2
import numpy as np

LABELS = ("none", "palm", "thumbs_down", "thumbs_up")
SECONDS_PER_LABEL = 1.5  # how long each label is shown, if a session shows all in turn

_SHAKE = 16  # pixels by which the room is larger than the image on each side, so that the camera can shake


def draw_session(
    rng: np.random.Generator, label: str | None, fps: float, width: int, height: int
) -> Iterator[np.ndarray]:
    """Yield the images of one session without end. The same random numbers give the same pixels.

    Args:
        rng: Determines the room, the light, the person, the motion and the noise.
        label: One of LABELS. None shows each label for SECONDS_PER_LABEL, again and again.
        fps: Images per second of the session.
        width: In pixels.
        height: In pixels.

    Yields:
        uint8 [height, width, 3], BGR.
    """
    room = _draw_room(rng, width + 2 * _SHAKE, height + 2 * _SHAKE)
    light = _draw_light(rng, width, height)
    noise = np.clip(rng.normal(128, rng.uniform(2, 9), (height * 2, width * 2, 3)), 0, 255).astype(np.uint8)
    person = _Person(rng)
    motion = _Motion(rng)
    for number in itertools.count():
        pose = motion.at(number / fps)
        left, top = (int(_SHAKE + 12 * pose[name]) for name in ("shake_x", "shake_y"))
        image = room[top : top + height, left : left + width].copy()
        person.draw(image, label or label_at(number, fps), pose)
        image = cv2.multiply(image, light, scale=(1 + 0.06 * pose["flicker"]) / 128)
        left, top = (
            int(rng.integers(0, width)),
            int(rng.integers(0, height)),
        )  # another part of the noise for each image
        yield cv2.addWeighted(image, 1, noise[top : top + height, left : left + width], 1, -128)


def label_at(number: int, fps: float = 30.0) -> str:
    """Return the true label of image `number` (from 0) of a session that shows all labels in turn."""
    return LABELS[int(number / fps / SECONDS_PER_LABEL) % len(LABELS)]


def _draw_room(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw a stained wall with furniture and clutter, uint8 [height, width, 3] BGR."""
    wall = rng.integers(40, 216, 3)
    stains = (wall + wall.mean()) / 2 + rng.normal(0, 25, (5, 6, 1)) + rng.normal(0, 12, (5, 6, 3))
    room = cv2.resize(np.clip(stains, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(4, 14)):
        color = rng.integers(0, 256, 3)
        color = ((color + color.mean()) / 2).tolist()
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = int(rng.integers(20, width // 2)), int(rng.integers(20, height // 2))
        shape = rng.integers(0, 4)
        if shape == 0:
            cv2.rectangle(room, (x, y), (x + w, y + h), color, -1)
        elif shape == 1:
            cv2.ellipse(room, (x, y), (w // 3, h // 3), rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
        elif shape == 2:
            cv2.line(room, (x, y), (x + w, y - h), color, int(rng.integers(2, 24)), cv2.LINE_AA)
        else:  # an object of a skin's color, so that a hand can't be told by its color alone
            cv2.ellipse(room, (x, y), (w // 5, h // 4), 0, 0, 360, _skin_color(rng), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.6, 3.0))


def _draw_light(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return the factor for each pixel, 128 times: brightness, tint and a darker side, uint8 [height, width, 3]."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * math.pi)
    slope = 1 + rng.uniform(0, 0.35) * (x * math.cos(angle) + y * math.sin(angle))
    tint = rng.uniform(0.6, 1.2) * rng.uniform(0.88, 1.12, 3)
    return np.clip(128 * slope[..., None] * tint, 0, 255).astype(np.uint8)


def _skin_color(rng: np.random.Generator) -> list[float]:
    """Return a skin color between light and dark, BGR, 0 to 255."""
    depth = rng.uniform(0, 1)
    light, dark = np.array([175, 200, 240.0]), np.array([40, 62, 95.0])
    return (light + depth * (dark - light) + rng.normal(0, 6, 3)).clip(0, 255).tolist()


class _Motion:
    """Smooth random motion: each quantity is the mean of two slow sine waves, between -1 and 1."""

    names = ("x", "y", "size", "turn", "bend", "shake_x", "shake_y", "flicker", "rest")

    def __init__(self, rng: np.random.Generator):
        self._frequency = rng.uniform(0.8, 4.0, (len(self.names), 2))  # radians per second
        self._phase = rng.uniform(0, 2 * math.pi, (len(self.names), 2))

    def at(self, seconds: float) -> dict[str, float]:
        """Return the pose at a time: the value of each name."""
        values = np.sin(self._frequency * seconds + self._phase).mean(axis=1)
        return dict(zip(self.names, values.tolist()))


class _Person:
    """A person: the hand, the sleeve and how the hand is held. The width of the palm is the unit of length."""

    def __init__(self, rng: np.random.Generator):
        self.skin = np.array(_skin_color(rng))
        self.sleeve = rng.integers(0, 256, 3).tolist()  # its color
        self.left_handed = rng.random() < 0.5
        self.size = rng.uniform(0.2, 0.34)  # width of the palm, as a share of the image's height
        self.home = rng.uniform(-0.12, 0.12, 2)  # place of the hand, as a share of the image, from its middle
        self.slant = rng.normal(0, 9)  # degrees by which this person turns the hand
        self.thumb = rng.uniform(0.75, 1.0)  # length
        self.thumb_width = rng.uniform(0.26, 0.34)
        self.fingers = rng.uniform(0.85, 1.15)  # length
        self.spread = rng.uniform(7, 17)  # degrees between the fingers of an open palm
        self.bare = rng.uniform(0.2, 1.2)  # length of the forearm that the sleeve leaves bare

    def draw(self, image: np.ndarray, label: str, pose: dict[str, float]) -> None:
        """Draw the hand with the gesture of a label. For "none" it is a fist without a thumb, or out of view."""
        if label == "none" and pose["rest"] < 0.3:
            return
        height, width = image.shape[:2]
        scale = height * self.size * (1 + 0.3 * pose["size"])
        angle = math.radians(self.slant + 22 * pose["turn"])
        # The axes of the hand in the image: from the wrist to the fingers, and from the little finger to the thumb.
        # For thumbs_down the second is reversed.
        along = np.array([math.cos(angle), math.sin(angle)])
        if self.left_handed:
            along[0] = -along[0]
        across = np.array([-along[1], along[0]]) * (1 if self.left_handed else -1)
        if label == "thumbs_down":
            across = -across
        if label == "palm":  # the fingers point up
            along, across = np.array([along[1], -abs(along[0])]), np.array([along[0], along[1]])
        origin = np.array([width, height]) * (0.5 + self.home + 0.15 * np.array([pose["x"], pose["y"]]))
        hand = _Hand(image, origin, along * scale, across * scale, scale, self.skin)
        hand.draw_arm(self.sleeve, self.bare)
        if label == "palm":
            self._draw_palm(hand, pose["bend"])
        else:
            self._draw_fist(hand, pose["bend"], thumb=label != "none")

    def _draw_fist(self, hand: _Hand, bend: float, thumb: bool) -> None:
        if thumb:
            hand.draw_limb((-0.1, 0.3), (0.05 + 0.15 * bend, 0.4 + self.thumb), self.thumb_width, 1.0)
        hand.draw_limb((0, -0.18), (0, 0.18), 0.95, 0.93)
        for finger in range(4):
            y = 0.36 - 0.26 * finger
            hand.draw_limb((-0.05, y), (0.34 + 0.03 * bend, y), 0.25, 1.0 - 0.05 * finger)

    def _draw_palm(self, hand: _Hand, bend: float) -> None:
        for finger, length in enumerate((0.85, 1.0, 0.95, 0.7)):
            lean = math.radians((1.5 - finger) * (self.spread + 4 * bend))
            base = (0.35, 0.36 - 0.24 * finger)
            tip = (base[0] + self.fingers * length * math.cos(lean), base[1] + length * math.sin(lean))
            hand.draw_limb(base, tip, 0.23, 1.0 - 0.03 * finger)
        hand.draw_limb((-0.2, 0.25), (0.25 + 0.1 * bend, 0.85 * self.thumb + 0.15), self.thumb_width * 0.9, 0.97)
        hand.draw_limb((-0.1, 0), (0.15, 0), 1.0, 0.96)


class _Hand:
    """Draws limbs, which are thick round lines with a darker rim, in the coordinates of a hand."""

    def __init__(
        self,
        image: np.ndarray,
        origin: np.ndarray,
        along: np.ndarray,
        across: np.ndarray,
        scale: float,
        skin: np.ndarray,
    ):
        """Place a hand in an image.

        Args:
            image: uint8 [H, W, 3], BGR. It is changed.
            origin: The x and y of the middle of the palm, in pixels.
            along: The hand's first axis, from the wrist to the fingers: one unit in pixels.
            across: The hand's second axis, to the thumb: one unit in pixels.
            scale: Pixels of one unit, the width of the palm.
            skin: The color, BGR.
        """
        self.image, self.origin, self.along, self.across = image, origin, along, across
        self.scale, self.skin = scale, skin

    def draw_limb(self, start: tuple[float, float], end: tuple[float, float], width: float, shade: float) -> None:
        """Draw a limb between two points of the hand. `shade` is a factor of the skin's color."""
        first, last, thickness = self._pixel(start), self._pixel(end), max(3, round(width * self.scale))
        rim = max(1, round(0.035 * self.scale))
        cv2.line(self.image, first, last, (self.skin * 0.68 * shade).tolist(), thickness, cv2.LINE_AA)
        cv2.line(self.image, first, last, (self.skin * shade).tolist(), max(1, thickness - 2 * rim), cv2.LINE_AA)

    def draw_arm(self, sleeve: list[int], bare: float) -> None:
        """Draw the forearm out of the image, and a sleeve that leaves the length `bare` of it free."""
        self.draw_limb((-0.3, 0), (-6, 0), 0.66, 0.9)
        start, end = self._pixel((-0.55 - bare, 0)), self._pixel((-6, 0))
        cv2.line(self.image, start, end, sleeve, round(0.85 * self.scale), cv2.LINE_AA)

    def _pixel(self, point: tuple[float, float]) -> tuple[int, int]:
        x, y = self.origin + point[0] * self.along + point[1] * self.across
        return round(x), round(y)
