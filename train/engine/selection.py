"""Train by a strategy, and find out how accurate the result is on images that it never saw.

train_from_ridge    the strategies ridge, finetune, and auto, which keeps the better of both
train_and_refit     any other strategy: validate on a part of the images, then train once more on all
cross_validate      the same over several folds
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from teachcam.calibration import calibrate
from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split, leave_one_out, merge_into_folds, random_folds
from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.processor import share_of_memory
from teachcam.train.config.run_config import RunConfig
from teachcam.train.config.train_config import AUTO, FINETUNE, NUM_FOLDS, RIDGE
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine.context import Context
from teachcam.train.engine.fine_tuning import FineTuner
from teachcam.train.engine.ridge_strategy import RidgeTrainer
from teachcam.train.engine.strategies import StrategyResult, StrategyTrainer, make_trial
from teachcam.train.model.backbones import Network
from teachcam.train.model.stages import activation_bytes, divide

# For the activations of the images to fine-tune on, which `auto` keeps. As much again is needed to train on them.
MEMORY_SHARE, MAX_ACTIVATION_BYTES = 0.3, 2**32


def train_from_ridge(
    network: Network, contract: Contract, dataset: Dataset, samples: list[Sample], config: RunConfig, context: Context
) -> tuple[StrategyResult, list[Split]]:
    """Train by the strategy ridge, finetune or auto.

    Args:
        network: has a `sqrt` head; it is changed.
        contract: labels, input size and normalization.
        dataset: holds the images.
        samples: what to train on.
        config: the options of the run.
        context: what the training runs with.

    Returns:
        The result, and the splits whose validation samples its logits are of.

    Raises:
        TrainingError: A label has no image, or there are too few scenes to judge fine-tuning by.
    """
    settings = None if config.strategy == RIDGE else config.training()
    by_frames = config.split == "frames"
    splits = random_folds(samples, config.seed) if by_frames else leave_one_out(samples)
    network.eval()
    stages = divide(network.backbone, settings.trainable_fraction, contract.input_size) if settings else None
    if config.strategy == AUTO:
        num_bytes = activation_bytes(stages, contract.input_size) * len(samples)
        max_bytes = share_of_memory(MEMORY_SHARE, MAX_ACTIVATION_BYTES)
        stages = stages if num_bytes <= max_bytes else None
    trainer = RidgeTrainer(network, contract, dataset, samples, splits, context, config.augment, config.seed, stages)
    ridge = trainer.fit()
    seconds = ridge.trials[0]["seconds"]
    splits = splits or [Split(samples, [])]
    if settings is None:
        return ridge, splits
    if stages is None:
        note = (
            f"fine-tuning was not tried: the activations of {len(samples)} images take {num_bytes / 1e9:.1f} GB of "
            f"memory, and {max_bytes / 1e9:.1f} GB may be used here; "
            f"to do it: teachcam train --strategy {FINETUNE}"
        )
        return replace(ridge, notes=[note]), splits
    by_scenes = splits if by_frames else [split for split in splits if split.validation_scenes]
    folds = merge_into_folds(samples, by_scenes, config.folds or NUM_FOLDS)
    if not folds:
        reason = "there are too few scenes to judge it by: record each label in another place, too"
        if config.strategy == FINETUNE:
            raise TrainingError(f"--strategy {FINETUNE}: {reason}")
        return replace(ridge, notes=[f"fine-tuning was not tried: {reason}"]), splits
    tuner, notes = FineTuner(trainer, folds, settings, context), []
    if config.strategy == AUTO:
        left = max(0.0, config.budget - context.state.cached("ridge-seconds", lambda: seconds))
        expected = context.state.cached("finetune-seconds", tuner.expected_seconds)
        epochs = int(settings.num_epochs * left / expected)
        if epochs < settings.num_epochs:
            done = f"fine-tuned for {epochs} of {settings.num_epochs} epochs" if epochs else "fine-tuning was not tried"
            note = (
                f"{done}: it takes about {expected:.0f} s, and {left:.0f} s of --budget were left; to do it: "
                f"teachcam train --strategy {FINETUNE}"
            )
            notes = [note]
            if not epochs:
                return replace(ridge, notes=notes), splits
            share = epochs / settings.num_epochs  # in a few epochs, the full learning rates do harm
            lower = {"lr": share * settings.lr, "backbone_lr": share * settings.backbone_lr}
            shorter = config.training({**lower, **config.overrides, "epochs": epochs})
            tuner = FineTuner(trainer, folds, shorter, context)
    tuned, ridge_accuracy = tuner.fit()
    trials = ridge.trials + tuned.trials
    accuracy = tuned.trials[0]["validation_accuracy"]
    if config.strategy == AUTO and accuracy < ridge_accuracy:
        note = (
            f"fine-tuning was tried and dropped: {accuracy:.3f} accurate in scenes it never saw, where the head alone "
            f"is {ridge_accuracy:.3f}"
        )
        return replace(ridge, trials=trials, notes=[note]), splits
    return replace(tuned, trials=trials, notes=notes), folds


def train_and_refit(trainer: StrategyTrainer, strategy: str, overrides: dict, refit: bool) -> StrategyResult:
    """Train and validate by one strategy, then train once more in the same way on all images.

    Args:
        trainer: has the images for training and for validation.
        strategy: a key of STRATEGIES.
        overrides: settings that replace the strategy's.
        refit: whether to train once more, on validation images too: more rooms are worth the time.
    """
    result = _train(trainer, strategy, overrides)
    if not refit or not len(trainer.data.validation):
        return result
    overrides = refit_overrides(overrides, [result.history])
    network, _ = trainer.on_all_images().fit(strategy, overrides)
    return replace(result, validated_network=result.network, network=network)


def cross_validate(trainers: list[StrategyTrainer], strategy: str, overrides: dict) -> StrategyResult:
    """Validate on each fold in turn, then train once on all images.

    Args:
        trainers: one for each fold.
        strategy: a key of STRATEGIES.
        overrides: settings that replace the strategy's.

    Returns:
        A result whose logits are those of all folds' validation images, in the order of the folds.
    """
    folds = [_train(trainer, strategy, overrides) for trainer in trainers]
    overrides = refit_overrides(overrides, [fold.history for fold in folds])
    network, history = trainers[0].on_all_images().fit(strategy, overrides)
    logits = np.concatenate([fold.logits for fold in folds])
    class_ids = np.concatenate([trainer.data.validation.class_ids.numpy() for trainer in trainers])
    has_outliers = all(fold.contract.unknown_threshold > 0 for fold in folds)
    contract, probabilities = calibrate(trainers[0].contract, logits, class_ids, has_outliers)
    trials = [trial for fold in folds for trial in fold.trials]
    return StrategyResult(network, contract, strategy, logits, probabilities, history, trials)


def refit_overrides(overrides: dict, histories: list[list[dict]]) -> dict:
    """Return the overrides to train with on all images, where no validation images are left to stop early by.

    Without patience the whole schedule is run: to stop at the best epoch costs three points of accuracy in new rooms,
    because the learning rate is still high then. With patience, it stops after as many epochs as were best before.
    """
    if overrides.get("patience") is None:
        return overrides
    best = [min(history, key=lambda metrics: metrics["validation_loss"])["epoch"] for history in histories]
    return {**overrides, "stop_after": int(np.median(best)), "patience": None}


def _train(trainer: StrategyTrainer, strategy: str, overrides: dict) -> StrategyResult:
    started = time.monotonic()
    network, history = trainer.fit(strategy, overrides)
    result = trainer.evaluate(network, strategy, history)
    correct = result.logits.argmax(1) == trainer.data.validation.class_ids.numpy()
    return replace(result, trials=[make_trial(strategy, correct, time.monotonic() - started)])
