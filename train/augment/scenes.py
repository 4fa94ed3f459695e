"""Find the scenes of a dataset: sessions that were recorded before the same background.

A label is often recorded in a session of its own. What is behind it is then seen with the other labels, too, so a
session says little about another place, and a scene more.
"""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 112  # pixels: width and height of the images that are compared
SAME_LEVEL = 14  # gray levels: pixels that differ by less count as equal
SAME_AREA = 0.6  # fraction of equal pixels from which on two backgrounds are the same


def shrink_for_scenes(images: list[np.ndarray]) -> np.ndarray:
    """Return small copies of images, uint8 [N, SIZE, SIZE, 3]."""
    return np.array([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images])


def find_scenes(small: np.ndarray, class_ids: np.ndarray, sessions: list[str]) -> list[np.ndarray]:
    """Return the indices of the images of each scene.

    A session with several labels is a scene. Sessions with one label are merged if their median images are alike.

    Args:
        small: From `shrink_for_scenes`.
        class_ids: int [N].
        sessions: The recording session of each image.
    """
    scenes: list[tuple[np.ndarray, list[int]]] = []  # median image, indices
    session_names = np.array(sessions)
    for session in sorted(set(sessions)):
        indices = np.flatnonzero(session_names == session)
        median = np.median(small[indices, ::4, ::4], 0)  # every fourth pixel: there may be hundreds to compare with
        one_label = len(set(class_ids[indices])) == 1
        alike = next((members for other, members in scenes if one_label and _alike(median, other)), None)
        if alike is None:
            scenes.append((median, list(indices)))
        else:
            alike.extend(indices)
    return [np.array(members) for _, members in scenes]


def has_several_labels(scene: np.ndarray, class_ids: np.ndarray) -> bool:
    """Return whether a scene shows more than one label, so that its background can be told from what is in front."""
    return len(set(class_ids[scene])) > 1


def _alike(image: np.ndarray, other: np.ndarray) -> bool:
    return (np.abs(image - other).max(2) < SAME_LEVEL).mean() > SAME_AREA
