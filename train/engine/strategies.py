"""What of a network learns, and how fast: the field's strategies as settings, and `auto`, which chooses.

`learn` trains on what is given to train on, judges by what is held out, and fits what its answers mean.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from teachcam.contract import Contract
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.foreground import Foregrounds, segment_foregrounds
from teachcam.train.calibration import fit_temperature, fit_threshold, softmax
from teachcam.train.config import AUTO_STRATEGIES, BUDGET, STRATEGIES
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.head import fit_head
from teachcam.train.engine.trainer import fit
from teachcam.train.model.backbones import Network
from teachcam.train.model.features import extract_features

VIEWS = 2  # of each frame, for a head that learns first


@dataclass(frozen=True)
class StrategyResult:
    """A trained network, with what it is worth on the held-out examples before it learned any of them."""

    network: Network
    contract: Contract  # with the temperature and the threshold
    strategy: str
    logits: np.ndarray  # float32 [held out, labels]
    probabilities: np.ndarray  # float64 [held out, labels]
    history: list[dict]  # a line for each epoch
    tried: list[dict]  # each strategy: its name, held-out accuracy (or None) and seconds
    judged: Network | None = None  # the network that answered the held-out examples, if one did


class Learner:
    """Frames to learn from, others to judge by, and a network to begin with, which stays as it is.

    What its trainings are called, in bars and in the journal, begins with `name`.
    """

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
        self.network, self.contract, self.train, self.validation = network, contract, train, validation
        self.context, self.seed, self.augment, self.name = context or Context(), seed, augment, name

    def learn(
        self, strategy: str, changes: dict | None = None, budget: float = BUDGET, refit: bool = True
    ) -> StrategyResult:
        """Train by one strategy; `changes` are settings in place of its own. Or `auto`: by the best that fits a budget.

        `auto` begins with the cheapest and goes on while the held-out examples gain and `budget` seconds allow. With
        `refit` one is then trained in the same way on all examples: rooms are worth more than the time it takes.
        """
        changes, best, tried = changes or {}, None, []
        for rung in AUTO_STRATEGIES if strategy == "auto" else (strategy,):
            if best:
                if not len(self.validation):
                    break  # nothing could tell that it is better
                spent = sum(row["seconds"] for row in tried)
                if not self._once(f"{rung}-fits", partial(self._fits, rung, changes, budget - spent)):
                    break
            began = time.monotonic()
            network, history = self.fit(rung, changes)
            outcome = self._outcome(network, rung, history)
            seconds = self._once(f"{rung}-seconds", lambda began=began: time.monotonic() - began)
            accuracy = _accuracy(outcome, self.validation)
            tried.append({"strategy": rung, "validation_accuracy": accuracy, "seconds": seconds})
            if self.context.workers.broadcast(bool(best) and accuracy <= _accuracy(best, self.validation)):
                break
            best = outcome
        best = replace(best, tried=tried, judged=best.network)
        if refit and len(self.validation):
            changes = _changes_for_all(changes, [best.history])
            best = replace(best, network=self.of_all().fit(best.strategy, changes)[0])
        return best

    def head_accuracy(self, train: list[bool], validation: list[bool]) -> float:
        """Return what a head alone gets on other held-out examples than the learner's own, of all that it has."""
        everything = self.train + self.validation
        ids = everything.class_ids.to(self.context.device)
        parts = [(self._features[mask], ids[mask]) for mask in (torch.tensor(train), torch.tensor(validation))]
        network = copy.deepcopy(self.network)
        lines = fit_head(network, self.contract, *parts, replace(STRATEGIES["head"], seed=self.seed))
        return min(lines, key=lambda line: line["validation_loss"])["validation_accuracy"]

    @cached_property
    def _features(self) -> torch.Tensor:
        """The untrained backbone's features of all examples: each frame runs through it once."""
        frames = self.train.frames + self.validation.frames
        return extract_features(self.network, frames, self.contract, self.context)

    @cached_property
    def _augmentation(self) -> Augmentation:
        return augmentation_of(self.train, self.augment)

    def fit(self, strategy: str, changes: dict | None = None) -> tuple[Network, list[dict]]:
        """Train a copy of the network by one strategy; return it and a line for each epoch."""
        settings = replace(STRATEGIES[strategy], seed=self.seed, **(changes or {}))
        network, name, context = copy.deepcopy(self.network), self.name + strategy, self.context
        ids = self.train.class_ids.to(context.device)
        if strategy == "head":
            features, held_features = self._features.split([len(self.train), len(self.validation)])
            validation = held_features, self.validation.class_ids.to(context.device)
            context.progress.begin(name, settings.stop or settings.epochs, len(self.train))
            return network, fit_head(network, self.contract, (features, ids), validation, settings, context.progress)
        if settings.head_first and not context.journal.has(name):
            # On augmented frames, as the rest is: a head that leans on the background would mislead the layers.
            features = extract_features(network, _Views(self._augmentation, self.seed), self.contract, context)
            head = replace(STRATEGIES["head"], seed=self.seed)
            fit_head(network, self.contract, (features, ids.repeat(VIEWS)), (features[:0], ids[:0]), head)
        examples = self.train, self.validation, self._augmentation
        return network, fit(network, self.contract, *examples, settings, context, name)

    def of_all(self) -> Learner:
        """Return a learner of the held-out examples too, with nothing left to judge by."""
        everything = self.train + self.validation, self.validation[:0]
        name = "refit-"
        learner = Learner(self.network, self.contract, *everything, self.context, self.seed, self.augment, name)
        if "_features" in self.__dict__:  # already there, and of the same frames
            learner._features = self._features
        if "_augmentation" in self.__dict__:
            learner._augmentation = self._augmentation + augmentation_of(self.validation, self.augment)
        return learner

    def _once(self, what: str, compute: Callable):
        """Decide once, however often the run is interrupted, what depends on the clock."""
        return self.context.journal.once(self.name + what, compute)

    def _fits(self, strategy: str, changes: dict, left: float) -> bool:
        """Say whether a strategy can be expected to end within so many seconds, from two batches of it."""
        settings = replace(STRATEGIES[strategy], seed=self.seed, **changes)
        sample = self.train[: 2 * settings.batch]
        twice = replace(settings, epochs=2, sizes=(1.0,), patience=None)  # the first time draws clutter, and warms up
        alone = Context(self.context.device, self.context.workers, memory=self.context.memory)
        examples = sample, sample[:0], self._augmentation
        line = fit(copy.deepcopy(self.network), self.contract, *examples, twice, alone)[-1]
        size = float(np.mean(np.square(settings.sizes)))  # the share of the pixels
        frames = settings.epochs * size * (2 * len(self.train) + len(self.validation))  # to measure, and on all
        needed = frames / line["images_per_second"]
        if needed > left:
            self.context.progress.say(
                f"{strategy} was not tried: about {needed:.0f} s, {max(0, left):.0f} s of the budget are left"
            )
        return needed <= left

    def _outcome(self, network: Network, strategy: str, history: list[dict]) -> StrategyResult:
        if strategy == "head":
            features = self._features[len(self.train) :]
        else:
            features = extract_features(network, self.validation.frames, self.contract, self.context)
        with torch.no_grad():
            logits = network.head.eval()(features).float().cpu().numpy()
        saw_nothing = strategy != "head" and self._augmentation.has_outliers
        contract, probabilities = calibrated(self.contract, logits, self.validation.class_ids.numpy(), saw_nothing)
        return StrategyResult(network, contract, strategy, logits, probabilities, history, [])


class _Views(Sequence):
    """Each frame VIEWS times, augmented: all of them, and then all of them again."""

    def __init__(self, augmentation: Augmentation, seed: int):
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return VIEWS * len(self._augmentation.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, 0, index))
        return self._augmentation(index % len(self._augmentation.frames), rng)


def cross_validate(learners: list[Learner], strategy: str, changes: dict, budget: float = BUDGET) -> StrategyResult:
    """Judge by each learner's held-out examples in turn, then train once more on all of them.

    `auto` keeps what most of the folds kept. The outcome's logits are of the held-out examples of all folds, in order.
    """
    folds = [learner.learn(strategy, changes, budget / len(learners), refit=False) for learner in learners]
    kept = Counter(fold.strategy for fold in folds).most_common(1)[0][0]
    first = learners[0]
    changes = _changes_for_all(changes, [fold.history for fold in folds if fold.strategy == kept])
    network, history = first.of_all().fit(kept, changes)
    logits = np.concatenate([fold.logits for fold in folds])
    class_ids = np.concatenate([learner.validation.class_ids.numpy() for learner in learners])
    saw_nothing = all(fold.contract.unknown_threshold > 0 for fold in folds)
    contract, probabilities = calibrated(first.contract, logits, class_ids, saw_nothing)
    tried = [row for fold in folds for row in fold.tried]
    return StrategyResult(network, contract, kept, logits, probabilities, history, tried)


def calibrated(
    contract: Contract, logits: np.ndarray, class_ids: np.ndarray, saw_nothing: bool
) -> tuple[Contract, np.ndarray]:
    """Return the contract with the temperature and threshold that these held-out logits give, and probabilities.

    The threshold is 0 unless training `saw_nothing`, pictures of no label: only then does a low confidence mean that.
    With a label for the bare background, it would be the known frames of another room that fall below a threshold.
    """
    temperature = fit_temperature(logits, class_ids)
    probabilities = softmax(logits, temperature)
    threshold = fit_threshold(probabilities) if saw_nothing else 0.0
    return replace(contract, temperature=temperature, unknown_threshold=threshold), probabilities


def augmentation_of(examples: Examples, kind: str = "room") -> Augmentation:
    """Return the augmentation of these examples; of another room, with what can be cut out of them."""
    if kind != "room":
        return Augmentation(examples.frames, Foregrounds.none(len(examples)), kind)
    return Augmentation(
        examples.frames, segment_foregrounds(examples.frames, examples.class_ids.numpy(), examples.sessions)
    )


def _changes_for_all(changes: dict, measured: list[list[dict]]) -> dict:
    """Return the changes to train with on all examples, where nothing is left that could end it.

    The whole schedule, unless patience ends the measured ones early: then as many epochs as were best there. To stop
    the whole one there too costs three points in new rooms: its rate is still high then.
    """
    if changes.get("patience") is None:
        return changes
    best = [min(history, key=lambda line: line["validation_loss"])["epoch"] for history in measured]
    return {**changes, "stop": int(np.median(best)), "patience": None}


def _accuracy(outcome: StrategyResult, validation: Examples) -> float | None:
    right = outcome.probabilities.argmax(1) == validation.class_ids.numpy()
    return float(right.mean()) if len(right) else None
