"""The images of a dataset in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from teachcam.collect.dataset import Sample, list_samples
from teachcam.collect.inspection import inspect_measured, inspect_samples
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
