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
