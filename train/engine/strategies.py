"""Train by a strategy, and choose between strategies.

StrategyTrainer   trains copies of one network by a strategy of config.STRATEGIES
AutoSelector      trains by one strategy, or by those of `auto` and keeps the best; then once more on all images
cross_validate    the same over several folds
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from teachcam.contract import Contract
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.calibration import fit_temperature, fit_threshold, softmax
from teachcam.train.config import AUTO_STRATEGIES, BUDGET, STRATEGIES, TrainConfig
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.head import fit_head
from teachcam.train.engine.trainer import Trainer
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.metrics import Predictions
from teachcam.train.model.backbones import Network

NUM_VIEWS = 2  # augmented copies of each image, for a head that is trained first


@dataclass(frozen=True)
class StrategyResult:
    """A trained network, and how it did on the validation images before it was trained on them too."""

    network: Network
    contract: Contract  # with the fitted temperature and threshold
    strategy: str
    logits: np.ndarray  # float32 [N, num_classes], of the validation images
    probabilities: np.ndarray  # float64 [N, num_classes], of the validation images
    history: list[dict]  # metrics of each epoch
    trials: list[dict]  # for each strategy tried: its name, validation accuracy (or None) and seconds
    validated_network: Network | None = None  # the network whose logits these are; None for several folds

    def accuracy(self, validation: Examples) -> float | None:
        """Return the accuracy on the validation images, 0 to 1, or None if there are none."""
        return Predictions(self.probabilities, validation.class_ids.numpy()).accuracy


class StrategyTrainer:
    """Trains copies of one network, each by one strategy, on the same images."""

    def __init__(
        self,
        network: Network,
        contract: Contract,
        train: Examples,
        validation: Examples,
        context: Context | None = None,
        seed: int = 0,
        augment: str = "room",
        name: str = "",
    ):
        """Store what to train on.

        Args:
            network: the network to start from; it is not changed.
            contract: labels, input size and normalization.
            train: the training images.
            validation: the validation images; may be empty.
            context: what the trainings run with.
            seed: of all random numbers.
            augment: kind of augmentation: room, light or none.
            name: begins the names of the trainings in progress bars and saved states.
        """
        self.network, self.contract, self.seed, self.name = network, contract, seed, name
        self.context = context or Context()
        self.data = TrainingData(network, contract, train, validation, self.context, augment)

    def config(self, strategy: str, overrides: dict | None = None) -> TrainConfig:
        """Return a strategy's settings, with these overrides."""
        return replace(STRATEGIES[strategy], seed=self.seed, **(overrides or {}))

    def fit(self, strategy: str, overrides: dict | None = None) -> tuple[Network, list[dict]]:
        """Train a copy of the network by one strategy.

        Args:
            strategy: a key of STRATEGIES.
            overrides: settings that replace the strategy's.

        Returns:
            The trained network, and the metrics of each epoch.
        """
        config, network, name = self.config(strategy, overrides), copy.deepcopy(self.network), self.name + strategy
        if strategy == "head":
            return network, self._fit_head_only(network, config, name)
        if config.head_first and not self.context.state.has(name):
            self._fit_head_on_augmented(network)
        data = self.data
        trainer = Trainer(
            network, self.contract, data.train, data.validation, data.augmentation, config, self.context, name
        )
        return network, trainer.fit()

    def evaluate(self, network: Network, strategy: str, history: list[dict]) -> StrategyResult:
        """Return how a network that was trained by `strategy` does on the validation images, and calibrate it."""
        if strategy == "head":  # its backbone is the original one, whose features are known
            features = self.data.features[len(self.data.train) :]
        else:
            features = extract_features(network, self.data.validation.images, self.contract, self.context)
        with torch.no_grad():
            logits = network.head.eval()(features).float().cpu().numpy()
        has_outliers = strategy != "head" and self.data.augmentation.has_outliers
        class_ids = self.data.validation.class_ids.numpy()
        contract, probabilities = calibrate(self.contract, logits, class_ids, has_outliers)
        return StrategyResult(network, contract, strategy, logits, probabilities, history, [])

    def on_all_images(self) -> StrategyTrainer:
        """Return a trainer that trains on the validation images too, and has none to validate on."""
        trainer = copy.copy(self)
        trainer.name, trainer.data = "refit-", self.data.merged()
        return trainer

    def head_accuracy(self, train: list[bool], validation: list[bool]) -> float:
        """Return the validation accuracy of a head alone for another split of the same images.

        Args:
            train: which images to train on, in the order training images, validation images.
            validation: which images to validate on.
        """
        class_ids = (self.data.train + self.data.validation).class_ids.to(self.context.device)
        masks = torch.tensor(train), torch.tensor(validation)
        parts = [(self.data.features[mask], class_ids[mask]) for mask in masks]
        history = fit_head(copy.deepcopy(self.network), self.contract, *parts, self.config("head"))
        return min(history, key=lambda metrics: metrics["validation_loss"])["validation_accuracy"]

    def _fit_head_only(self, network: Network, config: TrainConfig, name: str) -> list[dict]:
        """Train the head on the features of the images as they are."""
        train, validation, device = self.data.train, self.data.validation, self.context.device
        features, validation_features = self.data.features.split([len(train), len(validation)])
        parts = (features, train.class_ids.to(device)), (validation_features, validation.class_ids.to(device))
        self.context.progress.begin(name, config.num_epochs, len(train))
        return fit_head(network, self.contract, *parts, config, self.context.progress)

    def _fit_head_on_augmented(self, network: Network) -> None:
        """Train the head before the other layers, on augmented images as they will be.

        A head that relies on the background would give the other layers wrong gradients.
        """
        views = _AugmentedViews(self.data.augmentation, self.seed)
        features = extract_features(network, views, self.contract, self.context)
        class_ids = self.data.train.class_ids.to(self.context.device)
        parts = (features, class_ids.repeat(NUM_VIEWS)), (features[:0], class_ids[:0])
        fit_head(network, self.contract, *parts, self.config("head"))


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
        trainer, overrides, best, trials = self.trainer, overrides or {}, None, []
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


class _AugmentedViews(Sequence):
    """NUM_VIEWS augmented copies of each image: one of every image, then the next of every image."""

    def __init__(self, augmentation: Augmentation, seed: int):
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return NUM_VIEWS * len(self._augmentation.images)

    def __getitem__(self, index: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, 0, index))
        return self._augmentation(index % len(self._augmentation.images), rng)


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


def calibrate(
    contract: Contract, logits: np.ndarray, class_ids: np.ndarray, has_outliers: bool
) -> tuple[Contract, np.ndarray]:
    """Fit temperature and threshold to the validation images.

    Args:
        contract: of the trained network.
        logits: float32 [N, num_classes], of the validation images.
        class_ids: int64 [N], their labels.
        has_outliers: whether training used images of no label (outlier exposure, Hendrycks 2019). Only then does a low
            confidence mean "unknown". Otherwise the threshold is 0: it would reject images of another room.

    Returns:
        The contract with temperature and threshold, and the probabilities, float64 [N, num_classes].
    """
    temperature = fit_temperature(logits, class_ids)
    probabilities = softmax(logits, temperature)
    threshold = fit_threshold(probabilities) if has_outliers else 0.0
    return replace(contract, temperature=temperature, unknown_threshold=threshold), probabilities


def refit_overrides(overrides: dict, histories: list[list[dict]]) -> dict:
    """Return the overrides to train with on all images, where no validation images are left to stop early by.

    Without patience the whole schedule is run: to stop at the best epoch costs three points of accuracy in new rooms,
    because the learning rate is still high then. With patience, it stops after as many epochs as were best before.
    """
    if overrides.get("patience") is None:
        return overrides
    best = [min(history, key=lambda metrics: metrics["validation_loss"])["epoch"] for history in histories]
    return {**overrides, "stop_after": int(np.median(best)), "patience": None}
