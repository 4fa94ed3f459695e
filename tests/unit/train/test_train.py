"""Training: the split, the weights, the strategies, and a run on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LABELS, SMALL, assert_one_line_error, call_here, record

from teachcam.contract import Contract, TrainingInfo
from teachcam.errors import ContractError, TrainingError
from teachcam.preprocessing import preprocess, shrink
from teachcam.train import finetune
from teachcam.train.config.train_config import OPTIMIZERS, SCHEDULES, STRATEGIES, TrainConfig
from teachcam.train.data.dataset import Dataset, Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.loss import OUTLIER_WEIGHT, balanced_cross_entropy, batch_targets, class_weights
from teachcam.train.engine.optimizer import make_optimizer
from teachcam.train.engine.selection import train_and_refit
from teachcam.train.engine.strategies import StrategyTrainer
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.backbones import build_network
from teachcam.train.model.checkpoint import load_checkpoint


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


def make_trainer(dataset, context=None, **options) -> StrategyTrainer:
    """Return a trainer on all images of the dataset; the first six are the validation images too."""
    data = Dataset(dataset)
    examples = data.examples(data.samples)
    network, _ = build_network("squeezenet1_1", len(LABELS), "imagenet")
    contract = Contract(labels=LABELS, input_size=(224, 224))
    return StrategyTrainer(TrainingData(network, contract, examples, examples[:6], context), **options)


def give_wrong_validation_labels(trainer: StrategyTrainer) -> None:
    """Make the validation loss rise with every epoch."""
    validation = trainer.data.validation
    wrong = (validation.class_ids + 1) % len(LABELS)
    trainer.data.validation = replace(validation, class_ids=wrong)


def test_head_runs_the_backbone_once_per_image_and_does_not_change_it(dataset):
    trainer = make_trainer(dataset)
    before = {name: value.clone() for name, value in trainer.network.backbone.state_dict().items()}
    batch_sizes = []
    trainer.network.backbone.register_forward_hook(lambda _, inputs, __: batch_sizes.append(len(inputs[0])))
    result = train_and_refit(trainer, "head", {}, refit=False)
    assert sum(batch_sizes) == len(trainer.data.train) + len(trainer.data.validation)
    after = result.network.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]


def test_a_head_trained_on_standardized_features_works_on_the_original_ones(dataset):
    trainer = make_trainer(dataset)
    network, history = trainer.fit("head")
    features = extract_features(network, trainer.data.validation.images, trainer.contract, Context())
    loss = balanced_cross_entropy(trainer.data.train.class_ids, len(LABELS))
    best = min(metrics["validation_loss"] for metrics in history)
    assert loss(network.head(features), trainer.data.validation.class_ids).item() == pytest.approx(best, rel=1e-3)


NUM_CONVOLUTIONS = 25
FIRST_TRAINED = {"partial": 7, "differential": 0, "full": 0, "gradual": 0, "scratch": 0}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(FIRST_TRAINED))
def test_a_strategy_trains_its_layers_only(strategy, dataset):
    trainer = make_trainer(dataset)
    trainer.data.validation = trainer.data.validation[:0]  # without validation images, the last epoch is kept
    network, history = trainer.fit(strategy, {"epochs": 2, "progressive_resize": (0.3,)})
    changed = [
        not torch.equal(layer.weight, original.weight)
        for layer, original in zip(network.backbone.modules(), trainer.network.backbone.modules(), strict=True)
        if isinstance(layer, torch.nn.Conv2d)
    ]
    frozen = FIRST_TRAINED[strategy]
    assert changed == [False] * frozen + [True] * (NUM_CONVOLUTIONS - frozen)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert len(history) == 2


def test_refit_trains_on_the_validation_images_after_they_were_evaluated(dataset):
    without, refitted = (
        train_and_refit(make_trainer(dataset), "head", {"epochs": 2}, refit) for refit in (False, True)
    )
    assert (without.probabilities == refitted.probabilities).all()
    assert not torch.equal(without.network.head.weight, refitted.network.head.weight)
    assert torch.equal(without.network.head.weight, refitted.validated_network.head.weight)


def test_patience_stops_training_and_keeps_the_best_weights(dataset):
    trainer = make_trainer(dataset)
    give_wrong_validation_labels(trainer)
    network, history = trainer.fit("head", {"epochs": 60, "patience": 3})
    assert len(history) == 4
    first, _ = trainer.fit("head", {"epochs": 1})
    assert torch.equal(network.head.weight, first.head.weight)


@pytest.mark.parametrize(("patience", "validated", "refitted"), [(None, 20, 20), (3, 4, 1)])
def test_refit_runs_the_whole_schedule_or_as_far_as_patience_found_best(dataset, patience, validated, refitted):
    num_epochs, context = {}, Context()
    context.progress.begin = lambda name, epochs, *_: num_epochs.update({name: epochs})
    trainer = make_trainer(dataset, context=context)
    give_wrong_validation_labels(trainer)
    result = train_and_refit(trainer, "head", {"epochs": 20, "patience": patience}, refit=True)
    assert len(result.history) == validated
    assert num_epochs["refit-head"] == refitted


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
    _, history = make_trainer(dataset).fit("head", overrides)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_rare_label_counts_as_much_as_a_common_one():
    class_ids = torch.tensor([0] * 9 + [1])
    loss = balanced_cross_entropy(class_ids, 2)
    undecided = torch.zeros(10, 2)
    assert loss(undecided + torch.tensor([3.0, 0.0]), class_ids) > loss(undecided, class_ids)


def test_the_weights_of_a_batch_sum_to_one_and_those_of_outliers_to_theirs():
    class_ids = torch.tensor([0, 0, 0, 1])
    targets, weights = batch_targets(class_ids, class_weights(class_ids, 2), num_outliers=2)
    assert targets.tolist() == [[1, 0], [1, 0], [1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]]
    assert weights[3].item() == pytest.approx(3 * weights[0].item())
    assert weights[:4].sum().item() == pytest.approx(1)
    assert weights[4:].sum().item() == pytest.approx(OUTLIER_WEIGHT)


def test_the_same_seed_gives_the_same_weights(dataset, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone", "squeezenet1_1", "--strategy", "head", "--no-refit"]  # as `trained`
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
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_small_number_of_images_can_be_trained_on(strategy):
    """33 images leave a batch of one, which batch norm can't learn from when training from scratch."""
    contract = Contract(labels=("a", "b"), input_size=(32, 32))
    for num_images in (2, 3, 5, 33):
        network, _ = build_network("resnet18", 2, "none")
        images = list(np.random.default_rng(0).integers(0, 256, (num_images, 32, 32, 3), np.uint8))
        sessions = [f"s{number}" for number in range(num_images)]
        examples = Examples(images, torch.arange(num_images) % 2, sessions, sessions)
        trainer = StrategyTrainer(TrainingData(network, contract, examples, examples[:0], augment="light"), 0)
        _, history = trainer.fit(strategy, {"epochs": 1})
        assert np.isfinite(history[-1]["loss"])


def test_one_image_at_a_time_from_scratch_is_an_error_that_says_what_to_do(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--backbone", "resnet18", "--image-size", "32", "--batch-size", "1", "--strategy", "scratch"]
    with pytest.raises(TrainingError, match="give a larger --batch-size"):
        finetune.main(["--data", str(dataset), *arguments])
