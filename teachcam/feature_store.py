"""Keep the features of images in a file, so that no image runs through a network twice.

with closing(FeatureStore(path, "a network", np.dtype((np.float32, 1280)))) as store:
    features = store.get(hash_of_the_file)         # None if they are not known
    store.put({hash_of_the_file: features})

The file is an SQLite database, which several programs may use at the same time. Only time is lost with it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path
from typing import Mapping

import numpy as np

MAX_BYTES = 2**32  # of a file: features of 800,000 images with 1280 numbers each
_COLUMNS = "network, hash, checksum, features"


class FeatureStore:
    """Maps the hash of an image's file to a row of numbers. Any thread may use it, one at a time."""

    def __init__(self, path: Path, network: str, dtype: np.dtype):
        """Open the file, or begin a new one. Where none can be written, features are kept in memory.

        Args:
            path: The file. Its folder is made, too. A damaged file is replaced.
            network: Name that stands for the network, its weights and its preprocessing.
            dtype: Type of a row: an array, or a record of arrays.
        """
        self._path, self._network, self._dtype = path, network, dtype
        self._database = self._open()

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the row of an image, of this store's dtype and read-only, or None if it is not known."""
        query = "SELECT checksum, features FROM features WHERE network = ? AND hash = ?"
        try:
            checksum, content = self._database.execute(query, (self._network, key)).fetchone() or (None, b"")
        except sqlite3.Error:  # locked for long, or a part of the file is damaged
            return None
        if checksum != _checksum(key, content) or len(content) != self._dtype.itemsize:
            return None
        return np.frombuffer(content, self._dtype.base).reshape(self._dtype.shape)[()]

    def put(self, rows: Mapping[bytes, np.ndarray]) -> None:
        """Add rows by their hashes. A full disk keeps nothing; a file of MAX_BYTES loses its oldest rows."""
        contents = [(key, np.asarray(row, self._dtype.base).tobytes()) for key, row in rows.items()]
        values = [(self._network, key, _checksum(key, content), content) for key, content in contents]
        for _ in range(2):
            try:
                with self._database:
                    if self._path.is_file() and self._path.stat().st_size > MAX_BYTES:
                        oldest = "SELECT rowid FROM features ORDER BY rowid LIMIT ?"
                        self._database.execute(f"DELETE FROM features WHERE rowid IN ({oldest})", (len(values),))
                    self._database.executemany(f"REPLACE INTO features ({_COLUMNS}) VALUES (?, ?, ?, ?)", values)
                return
            except (sqlite3.OperationalError, OSError):  # a full disk, or locked for long
                return
            except sqlite3.DatabaseError:  # damaged
                self.close()
                self._database = self._begin_anew()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return _connect(self._path)
        except (sqlite3.Error, OSError):
            return self._begin_anew()

    def _begin_anew(self) -> sqlite3.Connection:
        with contextlib.suppress(sqlite3.Error, OSError):
            self._path.unlink()
            return _connect(self._path)
        return _connect(":memory:")


def _connect(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(str(path), check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous = OFF")  # a wait for the disk at each image would cost more than it saves
        database.execute(f"CREATE TABLE IF NOT EXISTS features ({_COLUMNS}, PRIMARY KEY (network, hash))")
        database.execute(f"SELECT {_COLUMNS} FROM features LIMIT 0")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _checksum(key: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(key))
