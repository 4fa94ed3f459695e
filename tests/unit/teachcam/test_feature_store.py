"""The feature store: rows by hash, in one file that survives crashes, damage and two programs at a time."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from teachcam import feature_store
from teachcam.feature_store import FeatureStore

ROW = np.dtype((np.float32, 4))
KEYS = [bytes([number]) * 32 for number in range(6)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "features.sqlite"


@pytest.fixture
def put(path):
    """Add rows, each full of one number, in a store of its own."""

    def put(numbers, network="network"):
        with closing(FeatureStore(path, network, ROW)) as store:
            store.put({KEYS[number]: np.full(4, number) for number in numbers})

    return put


def known(path, network="network", dtype=ROW):
    """Return which rows a new store has, after a check that they are right."""
    with closing(FeatureStore(path, network, dtype)) as store:
        rows = {number: store.get(key) for number, key in enumerate(KEYS)}
    found = {number for number, row in rows.items() if row is not None}
    assert all(np.array_equal(rows[number], np.full(dtype.shape, number)) for number in found)
    return found


def test_rows_are_found_by_network_hash_and_type(path, put):
    put([0, 1, 2])
    put([2, 3])
    put([4], "another")
    assert known(path) == {0, 1, 2, 3}
    assert known(path, "another") == {4}
    assert known(path, dtype=np.dtype((np.float32, 5))) == set()


def test_a_record_of_several_arrays_comes_back(path):
    record = np.dtype([("features", "f4", (4,)), ("signature", "u1", (3,))])
    value = np.array(([0.5, 1, 2, 3], [7, 8, 9]), record)[()]
    for read in (False, True):
        with closing(FeatureStore(path, "network", record)) as store:
            if not read:
                store.put({KEYS[0]: value})
            assert store.get(KEYS[0]) == value


def test_a_row_whose_bytes_changed_on_the_disk_is_not_known(path, put):
    put([1, 2])
    content = bytearray(path.read_bytes())
    content[content.index(np.full(4, 2, np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    assert known(path) == {1}


@pytest.mark.parametrize("damage", [lambda content: b"no database" * 1000, lambda content: content[:4096]])
def test_a_damaged_file_is_replaced(path, put, damage):
    put([1, 2])
    path.write_bytes(damage(path.read_bytes()))
    put([3])
    assert known(path) == {3}


def test_a_file_that_is_too_large_loses_its_oldest_rows(path, put, monkeypatch):
    put([0, 1])
    monkeypatch.setattr(feature_store, "MAX_BYTES", 100)
    put([2])
    put([3])
    assert known(path) == {2, 3}


def test_without_a_folder_that_can_be_written_rows_stay_in_memory(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with closing(FeatureStore(tmp_path / "file" / "features.sqlite", "network", ROW)) as store:
        store.put({KEYS[1]: np.full(4, 1)})
        assert store.get(KEYS[1]).tolist() == [1] * 4


WRITE_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from teachcam.feature_store import FeatureStore

store = FeatureStore(Path(sys.argv[1]), "network", np.dtype((np.float32, 4)))
print("writing", flush=True)
while True:
    store.put({bytes([number]) * 32: np.full(4, number) for number in range(6)})
"""


def test_a_killed_writer_leaves_a_file_that_others_read_and_write(path, put):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
        writer.stdout.readline()
    put([5])  # beside two others
    for writer in writers:
        writer.kill()
        writer.communicate()
    put(range(6))
    assert known(path) == {0, 1, 2, 3, 4, 5}
