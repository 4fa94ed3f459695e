"""What the version before wrote is read: a dataset with its history, a run, and a model file."""

from __future__ import annotations

import shutil

import pytest
from conftest import ROOT, call_here

from teachcam.collect.dataset import list_samples
from teachcam.export.from_torch.exporter import export
from teachcam.images import read_image
from teachcam.live.classifier import Classifier
from teachcam.runs import read_epochs
from teachcam.teach.label_images import LabelImages
from teachcam.train.model.checkpoint import load_checkpoint


@pytest.fixture
def files(tmp_path):
    return shutil.copytree(ROOT / "tests/data/version_before", tmp_path / "files")


def test_the_dataset_and_its_history(files):
    samples = list_samples(files / "data")
    assert {sample.scene for sample in samples} == {"room 0", "room 1", "room 2"}
    images = LabelImages(files / "data")
    assert (len(images.images("palm")), len(images.images("thumbs_up"))) == (5, 7)
    assert images.history.undo() == "undone: 1 image moved from palm to thumbs_up"
    images.refresh()
    assert (len(images.images("palm")), len(images.images("thumbs_up"))) == (6, 6)


def test_the_checkpoint_is_exported_and_the_model_predicts_the_same(files):
    before = Classifier(files / "run/model.onnx", "cpu")
    assert before.self_check() < 1e-5
    export(files / "run/checkpoint.pt", files / "again.onnx", files / "data")
    again = Classifier(files / "again.onnx", "cpu")
    assert again.contract == before.contract == load_checkpoint(files / "run/checkpoint.pt").contract
    for sample in list_samples(files / "data"):
        image = read_image(sample.path)
        assert again.classify(image).probabilities == pytest.approx(before.classify(image).probabilities, abs=1e-5)


def test_the_run(files):
    assert [epoch["epoch"] for epoch in read_epochs(files / "run")] == [1, 2]
    live = call_here("live/run.py", "--model", "run/model.onnx", "--camera", "data/palm", "--headless", cwd=files)
    assert live.returncode == 0, live.stderr
    assert len(live.stdout.splitlines()) == 5
