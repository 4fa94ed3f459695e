"""The options of a run: the same rules from Python and from the command line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import assert_one_line_error, call_here

from teachcam.errors import TrainingError
from teachcam.train import finetune
from teachcam.train.config.options import options_of
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.strategies import STRATEGIES
from teachcam.train.run_config import RunConfig


def parse(monkeypatch, *arguments: str) -> RunConfig:
    """Return the RunConfig that the command makes of its arguments."""
    configs: list[RunConfig] = []
    monkeypatch.setattr(finetune, "train", configs.append)
    assert finetune.main([*arguments]) == 0
    return configs[0]


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ([], RunConfig()),
        (["--strategy", "scratch"], RunConfig(strategy="scratch")),
        (["--strategy", "full", "--lr", "0.01"], RunConfig(strategy="full", overrides={"lr": 0.01})),
        (
            ["--strategy", "head", "--validation", "0.3", "--test", "a", "b"],
            RunConfig(strategy="head", validation_fraction=0.3, test=["a", "b"]),
        ),
        (
            ["--data", "x", "--out", "runs/y", "--strategy", "head", "--no-refit"],
            RunConfig(data="x", out="runs/y", strategy="head", refit=False),
        ),
        (
            ["--strategy", "partial", "--unfreeze", "0.5", "--progressive-resize", "0.5", "1", "--batch-size", "8"],
            RunConfig(
                strategy="partial",
                overrides={"trainable_fraction": 0.5, "progressive_resize": (0.5, 1.0), "batch_size": 8},
            ),
        ),
    ],
)
def test_the_command_line_makes_the_same_config_as_python(arguments, config, monkeypatch):
    assert parse(monkeypatch, *arguments) == config


def test_training_from_scratch_starts_from_random_weights():
    assert RunConfig(strategy="scratch").weights == "none"


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_one_learning_rate_is_that_of_all_layers(strategy):
    assert RunConfig(strategy=strategy, overrides={"lr": 0.01}).training.backbone_lr == 0.01
    settings = RunConfig(strategy=strategy, overrides={"lr": 0.01, "backbone_lr": 0.001}).training
    assert (settings.lr, settings.backbone_lr) == (0.01, 0.001)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"overrides": {"epochs": 0}}, "--epochs"),
        ({"overrides": {"epochs": 2.5}}, "--epochs"),
        ({"overrides": {"batch_size": 100_001}}, "--batch-size"),
        ({"overrides": {"lr": 0.0}}, "--lr"),
        ({"overrides": {"lr": float("nan")}}, "--lr"),
        ({"overrides": {"backbone_lr": float("inf")}}, "--backbone-lr"),
        ({"overrides": {"dropout": 1.0}}, "--dropout"),
        ({"overrides": {"trainable_fraction": -0.1}}, "--unfreeze"),
        ({"overrides": {"progressive_resize": (0.01, 1.0)}}, "--progressive-resize"),
        ({"overrides": {"schedule": "linear"}}, "--schedule"),
        ({"overrides": {"head_first": True}}, "head_first"),
        ({"strategy": "best"}, "--strategy"),
        ({"budget": float("inf")}, "--budget"),
        ({"image_size": 8}, "--image-size"),
        ({"validation_fraction": 0.95}, "--validation"),
        ({"seed": 2**32}, "--seed"),
        ({"folds": 1}, "--folds"),
        ({"folds": 2, "split": "frames"}, "--folds"),
        ({"test_list": "test.txt"}, "--test-list"),
        ({"train_list": "train.txt", "test_list": "test.txt", "test": ("a",)}, "--test-list"),
        ({"train_list": "train.txt", "labels": ("a", "b")}, "--labels"),
    ],
)
def test_an_invalid_option_is_an_error_from_python(options, flag):
    with pytest.raises(TrainingError, match=flag):
        RunConfig(**options)


def test_an_invalid_option_is_a_one_line_error_of_the_command(tmp_path):
    for arguments, flag in (
        (["--epochs", "0"], "--epochs must be 1 to 100000, not 0"),
        (["--seed", "-1"], "--seed must be 0 to 4294967295, not -1"),
        (["--test-list", "x"], "--test-list: give --train-list too"),
        (["--resume", "--epochs", "3"], "leave --epochs out"),
        (["--resume", "--no-refit"], "leave --no-refit out"),
    ):
        assert_one_line_error(call_here("train/finetune.py", *arguments, cwd=tmp_path), flag)


def test_a_config_survives_json():
    config = RunConfig(
        data="x",
        train_list="train.txt",
        strategy="partial",
        folds=2,
        overrides={"progressive_resize": [0.5, 1.0], "lr": 0.1},
        seed=7,
    )
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert isinstance(config.train_list, Path)


def test_every_option_explains_itself_and_every_strategy_is_valid():
    options = [*options_of(RunConfig), *options_of(TrainConfig)]
    assert {option.name for option in options_of(RunConfig)} == {one.name for one in fields(RunConfig)} - {"overrides"}
    assert len({option.flag for option in options}) == len(options)
    assert all(option.help and option.group in finetune.GROUPS for option in options)
    assert all(RunConfig(strategy=strategy).strategy == strategy for strategy in STRATEGIES)
