"""Training: the split, the weights, the strategies, and a run on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import LABELS, SMALL, assert_one_line_error, call_here, record

from teachcam.collect.split import Split
from teachcam.contract import Contract, TrainingInfo
from teachcam.errors import ContractError, TrainingError
from teachcam.preprocessing import preprocess, shrink
from teachcam.train import finetune
from teachcam.train.config.train_config import OPTIMIZERS, SCHEDULES, TrainConfig
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.loss import OUTLIER_WEIGHT, batch_targets, class_weights, weighted_cross_entropy
from teachcam.train.engine.optimizer import make_optimizer
from teachcam.train.engine.result import Result
from teachcam.train.engine.strategies.gradient import GRADIENT_STRATEGIES, Trained
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.run_config import RunConfig


def test_shrinking_first_changes_no_input():
    contract = Contract(labels=("a",), input_size=(224, 224))
    rng = np.random.default_rng(0)
    for shape in ((480, 640), (1080, 1920), (225, 447), (224, 224), (90, 900), (7, 5)):
        frame = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        expected = preprocess(frame, contract)
        assert expected.shape == (224, 224, 3)
        assert (preprocess(shrink(frame, (224, 224)), contract) == expected).all()


def test_preprocess_uses_the_whole_frame_in_rgb():
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, :20] = (255, 0, 0)  # blue at the far left, red at the far right: a centre crop would lose both
    frame[:, -20:] = (0, 0, 255)
    seen = preprocess(frame, Contract(labels=("a",), input_size=(224, 224)))
    assert tuple(seen[100, 0]) == (0, 0, 255)
    assert tuple(seen[100, -1]) == (255, 0, 0)


def make_data(dataset, strategy: str, overrides: dict | None = None, **options) -> TrainingData:
    config = RunConfig(data=dataset, strategy=strategy, backbone="squeezenet1_1", overrides=overrides or {}, **options)
    return TrainingData(config, Dataset(dataset, input_size=config.input_size))


def first_six(data: TrainingData) -> Split:
    """Return a fold with all images to train on; the first six are the validation images too."""
    return Split(data.samples, data.samples[:6])


def wrong_six(data: TrainingData) -> Split:
    """Return a fold whose validation loss rises with every epoch."""
    labels = data.contract.labels
    wrong = {label: labels[(index + 1) % len(labels)] for index, label in enumerate(labels)}
    return Split(data.samples, [replace(sample, label=wrong[sample.label]) for sample in data.samples[:6]])


def fit(data: TrainingData, fold: Split | None = None, context: Context | None = None) -> Result:
    return data.config.method.fit(data, [fold or first_six(data)], context or Context())


def train(data: TrainingData, fold: Split | None = None) -> Trained:
    """Train without a fold, and not once more on all images."""
    method, settings = data.config.method, data.config.training
    return method.train(data, fold or first_six(data), settings, Context(), method.name)


def balanced_loss(logits: torch.Tensor, class_ids: torch.Tensor, all_class_ids: torch.Tensor) -> float:
    """Return the loss of a batch of a training on images of these classes."""
    targets, weights = batch_targets(class_ids, class_weights(all_class_ids, logits.shape[1]), 0)
    return weighted_cross_entropy(logits, targets, weights).item()


def test_head_runs_the_backbone_once_per_image_and_does_not_change_it(dataset):
    data = make_data(dataset, "head", refit=False)
    before = {name: value.clone() for name, value in data.network.backbone.state_dict().items()}
    batch_sizes = []
    data.network.backbone.register_forward_hook(lambda _, inputs, __: batch_sizes.append(len(inputs[0])))
    result = fit(data)
    assert sum(batch_sizes) == len(data.samples)
    after = result.network.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]


def test_a_head_trained_on_standardized_features_works_on_the_original_ones(dataset):
    data = make_data(dataset, "head")
    fold, trained = first_six(data), train(data)
    train_ids, validation_ids = (data.examples(samples).class_ids for samples in (fold.train, fold.validation))
    features = extract_features(trained.network, data.examples(fold.validation).images, data.contract, Context())
    best = min(metrics["validation_loss"] for metrics in trained.history)
    assert balanced_loss(trained.network.head(features), validation_ids, train_ids) == pytest.approx(best, rel=1e-3)


NUM_CONVOLUTIONS = 25
FIRST_TRAINED = {"partial": 7, "differential": 0, "full": 0, "gradual": 0, "scratch": 0}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(FIRST_TRAINED))
def test_a_strategy_trains_its_layers_only(strategy, dataset):
    data = make_data(dataset, strategy, {"epochs": 2, "progressive_resize": (0.3,)})
    trained = train(data, Split(data.samples, []))  # without validation images, the last epoch is kept
    changed = [
        not torch.equal(layer.weight, original.weight)
        for layer, original in zip(trained.network.backbone.modules(), data.network.backbone.modules(), strict=True)
        if isinstance(layer, torch.nn.Conv2d)
    ]
    frozen = FIRST_TRAINED[strategy]
    assert changed == [False] * frozen + [True] * (NUM_CONVOLUTIONS - frozen)
    assert all(parameter.requires_grad for parameter in trained.network.parameters())
    assert len(trained.history) == 2


def test_refit_trains_on_the_validation_images_after_they_were_evaluated(dataset):
    without, refitted = (fit(make_data(dataset, "head", {"epochs": 2}, refit=refit)) for refit in (False, True))
    assert (without.logits == refitted.logits).all()
    assert not torch.equal(without.network.head.weight, refitted.network.head.weight)
    assert torch.equal(without.network.head.weight, refitted.validated_network.head.weight)


def test_patience_stops_training_and_keeps_the_best_weights(dataset):
    data = make_data(dataset, "head", {"epochs": 60, "patience": 3})
    trained = train(data, wrong_six(data))
    assert len(trained.history) == 4
    data = make_data(dataset, "head", {"epochs": 1})
    first = train(data, wrong_six(data))
    assert torch.equal(trained.network.head.weight, first.network.head.weight)


@pytest.mark.parametrize(("patience", "validated", "refitted"), [(None, 20, 20), (3, 4, 1)])
def test_refit_runs_the_whole_schedule_or_as_far_as_patience_found_best(dataset, patience, validated, refitted):
    num_epochs, context = {}, Context()
    context.progress.begin = lambda name, epochs, *_: num_epochs.update({name: epochs})
    data = make_data(dataset, "head", {"epochs": 20, "patience": patience})
    result = fit(data, wrong_six(data), context)
    assert len(result.history) == validated
    assert num_epochs["refit-head"] == refitted


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_is_a_one_line_error(dataset, tmp_path):
    options = ["--strategy", "full", "--image-size", "64", "--lr", "1e30", "--epochs", "2"]
    result = call_here("train/finetune.py", "--data", dataset, *options, cwd=tmp_path)
    assert_one_line_error(result, "the loss is nan", "smaller --lr")
    assert not (tmp_path / "runs/latest").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_and_schedule_lowers_the_loss(optimizer, schedule, dataset):
    lr = 0.03 if optimizer == "sgd" else 1e-3
    overrides = {"optimizer": optimizer, "schedule": schedule, "lr": lr, "weight_decay": 0.0, "epochs": 6}
    history = train(make_data(dataset, "head", overrides)).history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_rare_label_counts_as_much_as_a_common_one():
    class_ids = torch.tensor([0] * 9 + [1])
    undecided = torch.zeros(10, 2)
    for_common = undecided + torch.tensor([3.0, 0.0])
    assert balanced_loss(for_common, class_ids, class_ids) > balanced_loss(undecided, class_ids, class_ids)


def test_the_weights_of_a_batch_sum_to_one_and_those_of_outliers_to_theirs():
    class_ids = torch.tensor([0, 0, 0, 1])
    targets, weights = batch_targets(class_ids, class_weights(class_ids, 2), num_outliers=2)
    assert targets.tolist() == [[1, 0], [1, 0], [1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]]
    assert weights[3].item() == pytest.approx(3 * weights[0].item())
    assert weights[:4].sum().item() == pytest.approx(1)
    assert weights[4:].sum().item() == pytest.approx(OUTLIER_WEIGHT)


def test_the_same_seed_gives_the_same_weights(dataset, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*SMALL, "--strategy", "head", "--no-refit"]  # as `trained`
    finetune.main(["--data", str(dataset), "--out", "again", *options])
    first, again = (load_checkpoint(path / "checkpoint.pt").network for path in (trained, tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_an_invalid_dataset_or_backbone_is_a_one_line_error(tmp_path):
    assert_one_line_error(call_here("train/finetune.py", cwd=tmp_path), "no dataset at data", "teachcam capture")
    (tmp_path / "data").mkdir()
    assert_one_line_error(call_here("train/finetune.py", cwd=tmp_path), "no images in data")
    record(tmp_path / "data", [1], ["palm"], frames=2)
    assert_one_line_error(call_here("train/finetune.py", cwd=tmp_path), "only one label", "palm")
    record(tmp_path / "data", [1], ["none"], frames=2)
    result = call_here("train/finetune.py", "--backbone", "resnet1", cwd=tmp_path)
    assert_one_line_error(result, "no backbone 'resnet1'")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_can_not_be_made_is_an_error_before_training(dataset, tmp_path):
    (tmp_path / "file").touch()
    result = call_here("train/finetune.py", "--data", dataset, "--out", "file", cwd=tmp_path)
    assert_one_line_error(result, "file: File exists")
    assert "epoch" not in result.stderr


def test_label_folders_may_be_links(dataset, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for label in LABELS:
        (tmp_path / "data" / label).symlink_to(dataset / label)
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["--out", "runs/x", "--strategy", "head", *SMALL, "--epochs", "1"]) == 0
    assert len(load_checkpoint(tmp_path / "runs/latest/checkpoint.pt").validation_files) == 12


def test_the_contract_survives_json_and_refuses_strangers():
    contract = Contract(labels=("a", "b"), input_size=(224, 224), temperature=1.5, trained_on=TrainingInfo("x"))
    assert Contract.from_json(contract.to_json()) == contract
    with pytest.raises(ContractError, match="version 99"):
        Contract.from_json(contract.to_json().replace('"version": 2', '"version": 99'))
    for text in ("", "[]", "{}", '{"version": 2}', contract.to_json()[:-5]):
        with pytest.raises(ContractError, match="can't be read"):
            Contract.from_json(text)
    for broken in (
        {"labels": ["a", "a"]},
        {"labels": "ab"},
        {"labels": [1, 2]},
        {"input_size": [0, 0]},
        {"input_size": [224.0, 224]},
        {"temperature": 0},
        {"temperature": "1"},
        {"unknown_threshold": None},
        {"std": [0, 1, 1]},
        {"surprise": 1},
    ):
        with pytest.raises(ContractError, match="can't be read"):
            Contract.from_json(json.dumps({**json.loads(contract.to_json()), **broken}))
    with pytest.raises(ContractError, match="resized by nearest"):
        Contract.from_json(contract.to_json().replace("area-linear", "nearest"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_number_of_steps_has_a_schedule(schedule):
    for steps in range(1, 41):
        parameter = torch.nn.Parameter(torch.ones(1))
        config = TrainConfig(epochs=steps, lr=0.1, schedule=schedule)
        optimizer, rates = make_optimizer([([parameter], 0.1)], config, num_images=config.batch_size)
        for _ in range(steps):
            parameter.grad = torch.ones(1)
            optimizer.step()
            rates.step()
            assert 0 <= optimizer.param_groups[0]["lr"] <= 0.1 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [strategy.name for strategy in GRADIENT_STRATEGIES])
def test_every_small_number_of_images_can_be_trained_on(strategy, tmp_path):
    """33 images leave a batch of one, which batch norm can't learn from when training from scratch."""
    for num_images in (2, 3, 5, 33):
        for index in range(num_images):
            path = tmp_path / f"{num_images}/{'ab'[index % 2]}/s{index}_0000.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8))
        options = {"weights": "none", "image_size": 32, "augment": "light", "overrides": {"epochs": 1}}
        config = RunConfig(strategy=strategy, backbone="resnet18", **options)
        data = TrainingData(config, Dataset(tmp_path / str(num_images)))
        assert len(data.samples) == num_images
        assert np.isfinite(train(data, Split(data.samples, [])).history[-1]["loss"])


def test_one_image_at_a_time_from_scratch_is_an_error_that_says_what_to_do(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--backbone", "resnet18", "--image-size", "32", "--batch-size", "1", "--strategy", "scratch"]
    with pytest.raises(TrainingError, match="give a larger --batch-size"):
        finetune.main(["--data", str(dataset), *arguments])
