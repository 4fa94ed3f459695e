"""The images of a dataset, and the cache of their features."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.inspection import inspect_measured, inspect_samples
from teachcam.errors import DatasetError
from teachcam.train.data import images as images_module
from teachcam.train.data.dataset import Dataset
from teachcam.train.data.feature_cache import FeatureCache


@pytest.fixture
def dataset(dataset, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(dataset, tmp_path / "copy")


def test_the_fingerprint_depends_on_contents_and_labels_only(dataset):
    samples = list_samples(dataset)
    fingerprint = Dataset(dataset, samples).fingerprint()
    assert Dataset(dataset, samples[::-1]).fingerprint() == fingerprint
    moved = [Sample(samples[0].path, samples[-1].label, samples[0].session), *samples[1:]]
    assert moved[0].label != samples[0].label
    assert Dataset(dataset, moved).fingerprint() != fingerprint
    path = samples[0].path
    path.write_bytes(path.read_bytes() + b"\0")
    assert Dataset(dataset, samples).fingerprint() != fingerprint


def test_reading_measures_the_images_as_the_inspection_does(dataset):
    broken = dataset / "thumbs_up" / "broken_1.jpg"
    broken.write_bytes(b"no image")
    assert inspect_measured(Dataset(dataset).measurements) == inspect_samples(list_samples(dataset))


def test_images_beyond_the_limit_are_decoded_when_they_are_needed(dataset, monkeypatch):
    whole = Dataset(dataset)
    one = next(iter(whole.images.values())).nbytes
    monkeypatch.setattr(images_module, "MAX_BYTES", 3 * one)
    limited = Dataset(dataset)
    in_memory = [path for path in limited.images if limited.images[path] is limited.images[path]]
    assert len(in_memory) == 3 < len(limited.images)
    images = limited.examples(limited.samples).images
    for image, sample in zip(images, limited.samples, strict=True):
        assert np.array_equal(image, whole.images[sample.path])
    both = images[:2] + images[4:6]
    assert [np.array_equal(image, images[index]) for image, index in zip(both, (0, 1, 4, 5), strict=True)] == [True] * 4
    limited.samples[-1].path.unlink()
    with pytest.raises(DatasetError, match="leave the dataset alone"):
        images[len(images) - 1]


def test_features_are_found_by_content_and_damaged_files_are_left_out(tmp_path):
    hashes, features = [f"{index:064x}" for index in range(6)], np.arange(24, dtype=np.float32).reshape(6, 4)
    cache = FeatureCache(tmp_path, "network")
    cache.write(hashes[:3], features[:3])
    cache.write(hashes[3:5], features[3:5])
    known, is_known = FeatureCache(tmp_path, "network").read([*hashes[::-1], hashes[0]], 4)
    assert is_known.tolist() == [False, True, True, True, True, True, True]
    assert np.array_equal(known[1:], np.concatenate([features[4::-1], features[:1]]))
    assert not FeatureCache(tmp_path, "another").read(hashes, 4)[1].any()
    assert not cache.read(hashes, 5)[1].any()  # another number of features
    newest = max(tmp_path.glob("network/*.npz"))
    content = bytearray(newest.read_bytes())
    content[content.index(features[3].tobytes())] ^= 1
    newest.write_bytes(content)
    assert cache.read(hashes, 4)[1].tolist() == [True] * 3 + [False] * 3


def test_the_cache_of_features_removes_the_oldest_files(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path, "network")
    cache.write(["00" * 32], np.zeros((1, 1000), np.float32))
    monkeypatch.setattr("teachcam.train.data.feature_cache.MAX_BYTES", 6000)
    cache.write(["11" * 32], np.ones((1, 1000), np.float32))
    assert cache.read(["00" * 32, "11" * 32], 1000)[1].tolist() == [False, True]
