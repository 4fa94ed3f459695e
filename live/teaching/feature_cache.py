"""Features of images that were seen before, kept in a file by the content of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KEY_BYTES = 32  # of a SHA-256 hash


class FeatureCache:
    """A file of records: a key, and the features that belong to it. It only grows, and survives a crash.

    A record that was half written is cut off when the file is opened again.
    """

    def __init__(self, path: Path, feature_size: int):
        """Read the file, or begin a new one.

        Args:
            path: The file. Its folder is made with the first record.
            feature_size: Number of features.
        """
        self._path = path
        self._record = np.dtype([("key", f"V{KEY_BYTES}"), ("features", "<f4", (feature_size,))])
        content = path.read_bytes() if path.is_file() else b""
        count = len(content) // self._record.itemsize
        records = np.frombuffer(content, self._record, count)
        self._features = {record["key"].tobytes(): record["features"] for record in records}
        if len(content) % self._record.itemsize:
            with path.open("r+b") as file:
                file.truncate(count * self._record.itemsize)

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the features of a key, float32 [feature_size], or None."""
        return self._features.get(key)

    def put(self, key: bytes, features: np.ndarray) -> None:
        """Keep the features of a key, float32 [feature_size], if the disk has room."""
        self._features[key] = features
        record = np.array([(key, features)], self._record)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(record.tobytes())
        except OSError:  # a full disk: without the record, the features are computed again another time
            pass
