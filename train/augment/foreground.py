"""What stands before the background, cut out, so that training can show it before other backgrounds.

While one scene is recorded the camera stands still, so what stays the same through its frames is the background and
what changes is what the labels are about. Without this a network learns the walls along with the hands: trained before
plain walls and asked before a crowded one, it took nearly every hand with two fingers for one with five.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 112  # pixels: masks and backgrounds are this high and wide
SEEN = (0.03, 0.6)  # the share of a frame that a foreground can take up
NEAR = 14  # gray levels: no further apart is the same


@dataclass(frozen=True)
class Foregrounds:
    """Cut-outs of frames, in their order.

    `masks` are float32 [SIDE, SIDE], 0 to 1, or None where nothing could be cut out. `backgrounds` are the scenes'
    own, uint8 [SIDE, SIDE, 3] BGR: none where nothing could be cut out at all. `empty` says of each frame whether it
    is of the label that shows nothing but background, if there is such a label.
    """

    masks: list[np.ndarray | None]
    backgrounds: list[np.ndarray]
    empty: np.ndarray  # bool [N]

    @classmethod
    def none(cls, frames: int) -> Foregrounds:
        """Return that nothing can be cut out of so many frames."""
        return cls([None] * frames, [], np.zeros(frames, bool))

    def __add__(self, other: Foregrounds) -> Foregrounds:
        """Return the cut-outs of both; none of `other` where there are none of this one, in which more was seen."""
        if not self.backgrounds:
            other = Foregrounds.none(len(other.masks))
        return Foregrounds(
            self.masks + other.masks, self.backgrounds + other.backgrounds, np.append(self.empty, other.empty)
        )


def segment_foregrounds(frames: list[np.ndarray], class_ids: np.ndarray, sessions: list[str]) -> Foregrounds:
    """Cut the foregrounds out of frames (uint8 BGR, any size). 4 to 8 ms a frame.

    A scene needs at least two labels: what one label shows in all its frames might as well be the background. Two
    labels that show nothing in front mean that the background is what they are about: then it has to stay.
    """
    small = np.array([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
    masks: list[np.ndarray | None] = [None] * len(frames)
    areas = np.full(len(frames), np.nan)
    backgrounds = []
    with ThreadPoolExecutor() as pool:
        for indices in _scenes(small, class_ids, sessions):
            background = _background(small[indices], class_ids[indices])
            differences = np.abs(small[indices].astype(np.float32) - background)
            jitter = np.minimum(np.median(differences, 0), 12)  # what flickers all the time is not in front
            backgrounds.append(background)
            found = pool.map(lambda pair: _mask(*pair), zip(small[indices], differences - 2.5 * jitter, strict=True))
            for index, (mask, area) in zip(indices, found, strict=True):
                areas[index] = area
                if SEEN[0] < mask.mean() < SEEN[1]:
                    masks[index] = cv2.GaussianBlur(mask, (0, 0), 1)
    cut = ~np.isnan(areas)
    empty_labels = [
        label for label in np.unique(class_ids[cut]) if np.median(areas[cut & (class_ids == label)]) < SEEN[0]
    ]
    if not any(mask is not None for mask in masks) or len(empty_labels) > 1:
        return Foregrounds.none(len(frames))
    return Foregrounds(masks, backgrounds, np.isin(class_ids, empty_labels))


def _scenes(small: np.ndarray, class_ids: np.ndarray, sessions: list[str]) -> list[np.ndarray]:
    """Return the indices of the frames of each scene with more than one label.

    A session with several labels is a scene. Those with one are put together where their median pictures are alike.
    """
    scenes: list[tuple[np.ndarray, list[int]]] = []  # median picture, indices
    names = np.array(sessions)
    for session in sorted(set(sessions)):
        indices = np.flatnonzero(names == session)
        median = np.median(small[indices, ::4, ::4], 0)  # enough to tell: there may be hundreds to compare with
        lone = len(set(class_ids[indices])) == 1
        alike = next((own for other, own in scenes if lone and _alike(median, other)), None)
        if alike is None:
            scenes.append((median, list(indices)))
        else:
            alike.extend(indices)
    return [np.array(own) for _, own in scenes if len(set(class_ids[own])) > 1]


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return (np.abs(one - other).max(2) < NEAR).mean() > 0.6


def _background(small: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Return what most frames agree on, pixel by pixel: the median of all, or of one label's frames."""
    parts = [small, *(small[class_ids == label] for label in np.unique(class_ids))]
    candidates = np.stack([np.median(part, 0) for part in parts]).astype(np.uint8)
    votes = [
        ((np.maximum(small, candidate) - np.minimum(small, candidate)).max(3) < NEAR).mean(0)
        for candidate in candidates
    ]
    best = np.argmax(votes, 0)
    return np.take_along_axis(candidates, best[None, ..., None], 0)[0]


def _mask(frame: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, float]:
    """Cut what differs out of a frame: roughly by the difference, then along the edges that the colors give.

    Returns the mask, and how much of the frame is surely in front.
    """
    rough = np.clip((cv2.GaussianBlur(difference.max(2), (0, 0), 1) - 8) / 12, 0, 1)
    rough = cv2.morphologyEx(rough, cv2.MORPH_OPEN, np.ones((3, 3)))
    rough = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    half = (SIDE // 2, SIDE // 2)  # a quarter of the pixels, a quarter of the time
    frame, rough = (cv2.resize(picture, half, interpolation=cv2.INTER_AREA) for picture in (frame, rough))
    guess = np.where(rough > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    guess[cv2.dilate(rough, np.ones((9, 9))) < 0.05] = cv2.GC_BGD
    front = guess == cv2.GC_PR_FGD
    if front.mean() > SEEN[0] and not front.all():
        cv2.setRNGSeed(0)  # of this thread: the same frames give the same masks
        cv2.grabCut(frame, guess, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
        fine = (guess == cv2.GC_PR_FGD) | (guess == cv2.GC_FGD)
    else:
        fine = front
    # Where most is lost along the edges, the foreground is colored as the background is: the rough cut is better.
    front = fine if fine.sum() > front.sum() / 2 else front
    return cv2.resize(front.astype(np.float32), (SIDE, SIDE)), fine.mean()
