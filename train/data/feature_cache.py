"""Keep the features of images in files, so that the next training on the same images need not compute them again.

    runs/.features/<network>/<time>-<random>.npz     hashes uint8 [n, 32], features float32 [n, D]

A file is written whole and never changed, so trainings at the same time can share the folder. A ZIP file has checksums:
a damaged file is left out, and its features are computed again.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import numpy as np

from teachcam.files import open_atomic

FOLDER = ".features"  # beside the runs
MAX_BYTES = 2**32  # of all networks together: features of 800,000 images with 1280 numbers each


class FeatureCache:
    """The features of images by one network, by the SHA-256 hashes of the images' files."""

    def __init__(self, folder: Path, network: str):
        """Name the folder, which is made with the first file.

        Args:
            folder: Folder of the features of all networks.
            network: Name that stands for the network, its weights and its preprocessing.
        """
        self._folder, self._all = folder / network, folder

    def read(self, hashes: list[str], num_features: int) -> tuple[np.ndarray, np.ndarray]:
        """Read what is known.

        Args:
            hashes: Hashes of the images' files, as hexadecimal digits.
            num_features: Number of features of an image.

        Returns:
            features: float32 [N, num_features], 0 where they are not known.
            is_known: bool [N].
        """
        features, is_known = np.zeros((len(hashes), num_features), np.float32), np.zeros(len(hashes), bool)
        rows: dict[bytes, list[int]] = {}
        for row, own in enumerate(hashes):
            rows.setdefault(bytes.fromhex(own), []).append(row)
        for path in sorted(self._folder.glob("*.npz")):
            try:
                with np.load(path) as content:
                    found, values = content["hashes"], content["features"]
            except Exception:  # of many kinds, for files that are damaged
                continue
            if values.dtype != np.float32 or values.shape != (*found.shape[:1], num_features):
                continue
            for index, own in enumerate(found):
                if wanted := rows.get(own.tobytes()):
                    features[wanted], is_known[wanted] = values[index], True
        return features, is_known

    def write(self, hashes: list[str], features: np.ndarray) -> None:
        """Add the features of images, float32 [n, D]. On a full disk nothing is kept."""
        keys = np.array([list(bytes.fromhex(own)) for own in hashes], np.uint8)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open_atomic(self._folder / f"{time.time_ns()}-{secrets.token_hex(3)}.npz") as file:
                np.savez(file, hashes=keys, features=features)
            self._remove_oldest()
        except OSError:
            return

    def _remove_oldest(self) -> None:
        files = sorted(self._all.glob("*/*.npz"), key=lambda path: path.name)
        num_bytes = sum(path.stat().st_size for path in files)
        for path in files:
            if num_bytes <= MAX_BYTES:
                return
            num_bytes -= path.stat().st_size
            path.unlink()
