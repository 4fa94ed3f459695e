"""Keep the features of images in a file, so that no image runs through the backbone twice."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from teachcam.collect.quality import SIGNATURE

KEY_BYTES = 32  # of a SHA-256 hash


class ImageFeatures(NamedTuple):
    """The features of an image, and a small copy of it."""

    features: np.ndarray  # float32 [feature_size], from the backbone
    signature: np.ndarray  # uint8 [24 * 32 * 3], a small copy of the image: tells its scene


class FeatureCache:
    """Maps the SHA-256 hash of an image file to its features. The file only grows.

    A record that was half written, in a crash, is cut off when the file is opened again.
    """

    def __init__(self, path: Path, feature_size: int):
        """Read the file, or begin a new one.

        Args:
            path: The file. Its folder is made with the first record.
            feature_size: Number of features.
        """
        self._path = path
        fields = [("features", "<f4", (feature_size,)), ("signature", "u1", (3 * SIGNATURE[0] * SIGNATURE[1],))]
        self._record = np.dtype([("key", f"V{KEY_BYTES}"), *fields])
        content = path.read_bytes() if path.is_file() else b""
        count = len(content) // self._record.itemsize
        records = np.frombuffer(content, self._record, count)
        self._known = {
            record["key"].tobytes(): ImageFeatures(record["features"], record["signature"]) for record in records
        }
        if len(content) % self._record.itemsize:
            with path.open("r+b") as file:
                file.truncate(count * self._record.itemsize)

    def get(self, key: bytes) -> ImageFeatures | None:
        """Return the features of an image by the hash of its file, or None."""
        return self._known.get(key)

    def put(self, key: bytes, known: ImageFeatures) -> None:
        """Add the features of an image. On a full disk they are kept in memory only."""
        self._known[key] = known
        record = np.array([(key, *known)], self._record)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(record.tobytes())
        except OSError:  # a full disk: without the record, all is computed again another time
            pass
