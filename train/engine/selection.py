"""Choose a strategy by validation accuracy, and train once more on all images.

AutoSelector      trains by one strategy, or tries several within a time budget and keeps the best
cross_validate    the same over several folds
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from teachcam.train.calibration import calibrate
from teachcam.train.config import AUTO_STRATEGIES, BUDGET
from teachcam.train.engine.context import Context
from teachcam.train.engine.strategies import StrategyResult, StrategyTrainer
from teachcam.train.engine.trainer import Trainer


class AutoSelector:
    """Chooses the strategy by validation accuracy, within a time budget, and trains once more on all images."""

    def __init__(self, trainer: StrategyTrainer):
        self.trainer = trainer

    def select(
        self, strategy: str, overrides: dict | None = None, budget: float = BUDGET, refit: bool = True
    ) -> StrategyResult:
        """Train by one strategy, or by several and keep the best.

        Args:
            strategy: a key of STRATEGIES; or `auto`, which tries AUTO_STRATEGIES in turn as long as the validation
                accuracy rises.
            overrides: settings that replace the strategy's.
            budget: seconds that `auto` may take.
            refit: train once more in the same way on all images, validation images too: more rooms are worth the time.
        """
        trainer, overrides = self.trainer, overrides or {}
        best: StrategyResult | None = None
        trials: list[dict] = []
        for candidate in AUTO_STRATEGIES if strategy == "auto" else (strategy,):
            if best and not self._is_worth_trying(candidate, overrides, budget, trials):
                break
            started = time.monotonic()
            network, history = trainer.fit(candidate, overrides)
            result = trainer.evaluate(network, candidate, history)
            seconds = self._cached(f"{candidate}-seconds", lambda started=started: time.monotonic() - started)
            accuracy = result.accuracy(trainer.data.validation)
            trials.append({"strategy": candidate, "validation_accuracy": accuracy, "seconds": seconds})
            if trainer.context.processes.broadcast(bool(best) and accuracy <= best.accuracy(trainer.data.validation)):
                break
            best = result
        best = replace(best, trials=trials, validated_network=best.network)
        if refit and len(trainer.data.validation):
            overrides = refit_overrides(overrides, [best.history])
            best = replace(best, network=trainer.on_all_images().fit(best.strategy, overrides)[0])
        return best

    def fits_budget(self, strategy: str, overrides: dict, seconds_left: float) -> bool:
        """Return whether a strategy should end within the time left, estimated from two of its batches."""
        trainer, data = self.trainer, self.trainer.data
        config = trainer.config(strategy, overrides)
        sample = data.train[: 2 * config.batch_size]
        # The first epoch draws clutter images and warms up; the second is measured.
        trial_config = replace(config, epochs=2, progressive_resize=(1.0,), patience=None)
        context = trainer.context
        context = Context(context.device, context.processes, micro_batcher=context.micro_batcher)
        trial = Trainer(
            copy.deepcopy(trainer.network),
            trainer.contract,
            sample,
            sample[:0],
            data.augmentation,
            trial_config,
            context,
        )
        images_per_second = trial.fit()[-1]["images_per_second"]
        mean_pixels = float(np.mean(np.square(config.progressive_resize)))  # as a fraction of the full size's
        num_images = 2 * len(data.train) + len(data.validation)  # the training to validate, and the refit
        needed = config.epochs * mean_pixels * num_images / images_per_second
        if needed > seconds_left:
            trainer.context.progress.say(
                f"{strategy} was not tried: it takes about {needed:.0f} s, and {max(0, seconds_left):.0f} s of the "
                "budget are left"
            )
        return needed <= seconds_left

    def _is_worth_trying(self, strategy: str, overrides: dict, budget: float, trials: list[dict]) -> bool:
        """Return whether there are validation images to compare strategies on, and time for another one."""
        if not len(self.trainer.data.validation):
            return False
        seconds_left = budget - sum(trial["seconds"] for trial in trials)
        return self._cached(f"{strategy}-fits", partial(self.fits_budget, strategy, overrides, seconds_left))

    def _cached(self, name: str, compute: Callable):
        """Return a value that depends on the clock, the same again after the run was resumed."""
        return self.trainer.context.state.cached(self.trainer.name + name, compute)


def cross_validate(
    selectors: list[AutoSelector], strategy: str, overrides: dict, budget: float = BUDGET
) -> StrategyResult:
    """Validate on each fold in turn, then train once on all images.

    Args:
        selectors: one for each fold.
        strategy: a key of STRATEGIES, or `auto`, which keeps the strategy that most folds chose.
        overrides: settings that replace the strategy's.
        budget: seconds that `auto` may take for all folds together.

    Returns:
        A result whose logits are those of all folds' validation images, in the order of the folds.
    """
    folds = [selector.select(strategy, overrides, budget / len(selectors), refit=False) for selector in selectors]
    chosen = Counter(fold.strategy for fold in folds).most_common(1)[0][0]
    first = selectors[0].trainer
    overrides = refit_overrides(overrides, [fold.history for fold in folds if fold.strategy == chosen])
    network, history = first.on_all_images().fit(chosen, overrides)
    logits = np.concatenate([fold.logits for fold in folds])
    class_ids = np.concatenate([selector.trainer.data.validation.class_ids.numpy() for selector in selectors])
    has_outliers = all(fold.contract.unknown_threshold > 0 for fold in folds)
    contract, probabilities = calibrate(first.contract, logits, class_ids, has_outliers)
    trials = [trial for fold in folds for trial in fold.trials]
    return StrategyResult(network, contract, chosen, logits, probabilities, history, trials)


def refit_overrides(overrides: dict, histories: list[list[dict]]) -> dict:
    """Return the overrides to train with on all images, where no validation images are left to stop early by.

    Without patience the whole schedule is run: to stop at the best epoch costs three points of accuracy in new rooms,
    because the learning rate is still high then. With patience, it stops after as many epochs as were best before.
    """
    if overrides.get("patience") is None:
        return overrides
    best = [min(history, key=lambda metrics: metrics["validation_loss"])["epoch"] for history in histories]
    return {**overrides, "stop_after": int(np.median(best)), "patience": None}
