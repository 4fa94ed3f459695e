"""Keep the features of images in a file, so that no image runs through the backbone twice."""

from __future__ import annotations

import zlib
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

    A record that was half written, in a crash or on a full disk, is cut off before the next one. Each record has a
    checksum, and one with a wrong one is left out.
    """

    def __init__(self, path: Path, feature_size: int):
        """Read the file, or begin a new one.

        Args:
            path: The file. Its folder is made with the first record.
            feature_size: Number of features.
        """
        self._path = path
        fields = [("features", "<f4", (feature_size,)), ("signature", "u1", (3 * SIGNATURE[0] * SIGNATURE[1],))]
        self._record = np.dtype([("checksum", "<u4"), ("key", f"V{KEY_BYTES}"), *fields])
        content = path.read_bytes() if path.is_file() else b""
        count = len(content) // self._record.itemsize
        records = np.frombuffer(content, self._record, count)
        self._known = {
            record["key"].tobytes(): ImageFeatures(record["features"], record["signature"])
            for record in records
            if record["checksum"] == _checksum(record)
        }

    def get(self, key: bytes) -> ImageFeatures | None:
        """Return the features of an image by the hash of its file, or None."""
        return self._known.get(key)

    def put(self, key: bytes, known: ImageFeatures) -> None:
        """Add the features of an image. On a full disk they are kept in memory only."""
        self._known[key] = known
        record = np.array([(0, key, *known)], self._record)
        record["checksum"] = _checksum(record[0])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                if half := file.tell() % self._record.itemsize:
                    file.truncate(file.tell() - half)
                file.write(record.tobytes())
        except OSError:  # a full disk: without the record, all is computed again another time
            pass


def _checksum(record: np.void) -> int:
    """Return the checksum of a record's other fields."""
    return zlib.crc32(record.tobytes()[4:])
