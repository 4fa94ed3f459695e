"""Segment what stands in front of the background, so that training can composite it onto other backgrounds.

The camera stands still while it records. Pixels that stay the same are background; pixels that change belong to what
the labels are about. Without this step a network learns the walls along with the hands: trained before plain walls, it
took nearly every hand with two fingers in front of a cluttered wall for one with five.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

MASK_SIZE = 112  # pixels: width and height of masks and backgrounds
OUTLINE_SIZE = 56  # pixels: GrabCut takes a quarter of the time on a quarter of the pixels
MAX_FOR_BACKGROUND = 2000  # images of a scene that its background is estimated from: 300 MB
SAME_LEVEL = 14  # gray levels: pixels that differ by less count as equal
MIN_AREA, MAX_AREA = 0.03, 0.6  # fraction of an image that a foreground may cover


class Masks(Sequence):
    """The masks of a list of images, float32 [MASK_SIZE, MASK_SIZE], 0 to 1. None where nothing was segmented.

    Only the outlines are in memory, a bit for each of their pixels. They are smoothed on access, which takes 0.1 ms.
    """

    def __init__(self, num_images: int):
        """Begin without masks."""
        self._outlines: list[np.ndarray | None] = [None] * num_images

    def set(self, index: int, outline: np.ndarray) -> None:
        """Set the mask of an image by its outline, bool [OUTLINE_SIZE, OUTLINE_SIZE]."""
        self._outlines[index] = np.packbits(outline)

    def __len__(self) -> int:
        return len(self._outlines)

    def __getitem__(self, index):
        """Return the mask of an image, or a list of several."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        packed = self._outlines[index]
        if packed is None:
            return None
        outline = np.unpackbits(packed).reshape(OUTLINE_SIZE, OUTLINE_SIZE)
        return cv2.GaussianBlur(_enlarge(outline), (0, 0), 1)

    def __add__(self, other: Masks) -> Masks:
        both = Masks(0)
        both._outlines = self._outlines + other._outlines
        return both


@dataclass(frozen=True)
class Foregrounds:
    """Segmented foregrounds of a list of images, in its order."""

    masks: Masks  # float32 [MASK_SIZE, MASK_SIZE], 0 to 1; None if nothing was segmented
    backgrounds: list[np.ndarray]  # uint8 [MASK_SIZE, MASK_SIZE, 3] BGR; [] if no image has a mask
    is_background_label: np.ndarray  # bool [N]: the image's label stands for the bare background

    @classmethod
    def empty(cls, num_images: int) -> Foregrounds:
        """Return an object that has no mask for any of `num_images` images."""
        return cls(Masks(num_images), [], np.zeros(num_images, bool))

    def __add__(self, other: Foregrounds) -> Foregrounds:
        """Concatenate. If nothing was segmented in the first list, which is the larger one, drop the second's masks."""
        if not self.backgrounds:
            other = Foregrounds.empty(len(other.masks))
        return Foregrounds(
            self.masks + other.masks,
            self.backgrounds + other.backgrounds,
            np.append(self.is_background_label, other.is_background_label),
        )


def segment_foregrounds(images: Sequence[np.ndarray], class_ids: np.ndarray, groups: list[str]) -> Foregrounds:
    """Segment the foregrounds of all images, by background subtraction and GrabCut (Rother 2004).

    It takes 4 to 8 ms an image. Only a background with two labels or more before it is found: what one label shows in
    all its images might be the background. If two labels show nothing in front, the labels are about the background,
    and nothing is segmented.

    Args:
        images: Images, uint8 [H, W, 3], BGR, any size.
        class_ids: Class ids of the images, int [N].
        groups: Name of each image's group. Images of one group are in front of the same background.

    Returns:
        The masks, and the backgrounds in the order of `background_groups`.
    """
    masks = Masks(len(images))
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    areas = np.full(len(images), np.nan)
    backgrounds = []
    with ThreadPoolExecutor() as pool:
        for group in background_groups(class_ids, groups):
            indices = np.array(members[group])
            few = indices[:: -(-len(indices) // MAX_FOR_BACKGROUND)]
            small = np.array([_shrink(images[index]) for index in few])
            background = _estimate_background(small, class_ids[few])
            # Pixels that always change are not in front.
            flicker = np.minimum(np.median(np.abs(small.astype(np.float32) - background), 0), 12)
            backgrounds.append(background)

            def segment(index: int, background: np.ndarray = background, flicker: np.ndarray = flicker):
                image = _shrink(images[index])
                return _segment(image, np.abs(image.astype(np.float32) - background) - 2.5 * flicker)

            for index, (outline, area) in zip(indices, pool.map(segment, indices.tolist()), strict=True):
                areas[index] = area
                if MIN_AREA < _enlarge(outline).mean() < MAX_AREA:
                    masks.set(index, outline)
    in_scene = ~np.isnan(areas)
    background_labels = [
        label
        for label in np.unique(class_ids[in_scene])
        if np.median(areas[in_scene & (class_ids == label)]) < MIN_AREA
    ]
    if not any(mask is not None for mask in masks) or len(background_labels) > 1:
        return Foregrounds.empty(len(images))
    return Foregrounds(masks, backgrounds, np.isin(class_ids, background_labels))


def background_groups(class_ids: np.ndarray, groups: list[str]) -> list[str]:
    """Return the groups with several labels, whose background can be told from what is in front."""
    labels: dict[str, set[int]] = {}
    for class_id, group in zip(class_ids.tolist(), groups, strict=True):
        labels.setdefault(group, set()).add(class_id)
    return sorted(group for group, present in labels.items() if len(present) > 1)


def _estimate_background(small: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Return, for each pixel, the median of all images or of one label's, whichever most images agree with."""
    groups = [small, *(small[class_ids == label] for label in np.unique(class_ids))]
    candidates = np.stack([np.median(group, 0) for group in groups]).astype(np.uint8)
    votes = [
        ((np.maximum(small, candidate) - np.minimum(small, candidate)).max(3) < SAME_LEVEL).mean(0)
        for candidate in candidates
    ]
    best = np.argmax(votes, 0)
    return np.take_along_axis(candidates, best[None, ..., None], 0)[0]


def _segment(image: np.ndarray, difference: np.ndarray) -> tuple[np.ndarray, float]:
    """Segment one image by its difference from the background, then refine the outline with GrabCut.

    Returns the outline, bool [OUTLINE_SIZE, OUTLINE_SIZE], and the fraction of the image that GrabCut takes for
    foreground.
    """
    rough = np.clip((cv2.GaussianBlur(difference.max(2), (0, 0), 1) - 8) / 12, 0, 1)
    rough = cv2.morphologyEx(rough, cv2.MORPH_OPEN, np.ones((3, 3)))
    rough = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    half = (OUTLINE_SIZE, OUTLINE_SIZE)
    image, rough = (cv2.resize(array, half, interpolation=cv2.INTER_AREA) for array in (image, rough))
    classes = np.where(rough > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    classes[cv2.dilate(rough, np.ones((9, 9))) < 0.05] = cv2.GC_BGD
    foreground = classes == cv2.GC_PR_FGD
    if foreground.mean() > MIN_AREA and not foreground.all():
        cv2.setRNGSeed(0)  # of this thread, so that the same images give the same masks
        cv2.grabCut(image, classes, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
        refined = (classes == cv2.GC_PR_FGD) | (classes == cv2.GC_FGD)
    else:
        refined = foreground
    # If GrabCut removes more than half, the foreground has the background's colors and the rough mask is better.
    return (refined if refined.sum() > foreground.sum() / 2 else foreground), refined.mean()


def _shrink(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)


def _enlarge(outline: np.ndarray) -> np.ndarray:
    """Return an outline as a mask, float32 [MASK_SIZE, MASK_SIZE]."""
    return cv2.resize(outline.astype(np.float32), (MASK_SIZE, MASK_SIZE))
