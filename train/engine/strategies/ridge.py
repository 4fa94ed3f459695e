"""The strategy `ridge`: a closed-form head on the frozen backbone's features of the images and of augmented views.

There is no separate validation set. Each image is evaluated with a head that never saw its scene, so all images serve
both for training and for validation, and nothing has to be trained twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from teachcam.calibration import calibrate, cross_entropy
from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split, leave_one_out, random_folds
from teachcam.errors import TrainingError
from teachcam.processor import share_of_memory
from teachcam.ridge import DEFAULT_STRENGTH, RidgeHead, Rows, fit_ridge
from teachcam.train.augment.foreground import background_groups
from teachcam.train.augment.views import AugmentedViews, OutlierViews
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import FrozenModel, extract_stored
from teachcam.train.engine.result import Result
from teachcam.train.engine.strategies.base import VALIDATION_FRACTION, Strategy, make_trial
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.backbones import SQRT
from teachcam.train.model.stages import Stages

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig

MAX_VIEWS = 4  # augmented copies of each image; in new rooms more gained nothing
MEMORY_SHARE, MAX_BYTES = 0.15, 2**30  # for activations; those of further views are not kept
PATIENCE = 3  # rounds: after so many without a lower validation loss, no more views are made


class Ridge(Strategy):
    """Fits the head in closed form."""

    name = "ridge"
    head = SQRT
    evaluates_all = True
    needed_memory = 0.8e9

    def refuses(self, config: RunConfig) -> str | None:
        """Refuse another head, and other ways to evaluate."""
        if config.head != "linear" or not config.refit:
            flag = "--head" if config.refit else "--no-refit"
            return (
                f"{flag}: the strategy {self.name} has its own head, and leaves every scene out once; give another "
                "--strategy"
            )
        if config.validation_fraction != VALIDATION_FRACTION:
            return f"--validation: the strategy {self.name} evaluates on every scene; leave --validation out"
        if config.folds and self.settings is None:
            return f"--folds: the strategy {self.name} leaves every scene out once; leave --folds out"
        return super().refuses(config)

    def folds(self, samples: list[Sample], config: RunConfig) -> list[Split]:
        """Return a fold for each scene."""
        folds = random_folds(samples, config.seed) if config.split == "frames" else leave_one_out(samples)
        return folds or [Split(samples, [])]

    def fit(self, data: TrainingData, folds: list[Split], context: Context) -> Result:
        """Fit the head of the network."""
        return RidgeTrainer(data, folds, context).fit()


class RidgeTrainer:
    """Fits the head of a network, in rounds: first to the images, then to one more view of each in every round.

    Attributes:
        data: Network, whose head is changed, and the images.
        class_ids: Class ids of the samples, int [N].
        has_outliers: Whether views of bare backgrounds, which belong to no label, are trained on. The head then has a
            last output for them.
        rows: Rows that the head was fitted to. The fold id of a row is the index of the fold that has it for
            validation.
        rounds: Round in which each row was added, from 0, int [N].
    """

    def __init__(self, data: TrainingData, folds: list[Split], context: Context, stages: Stages | None = None):
        """Store what to train on.

        Args:
            data: Network with a `sqrt` head, and the images.
            folds: Folds of the samples, from `leave_one_out` or `random_folds`.
            context: Surroundings of the training.
            stages: The backbone in two parts, to keep the activations between them.

        Raises:
            TrainingError: A label has no image.
        """
        self.data, self._folds, self._context = data, folds, context
        self._labels = data.contract.labels
        self._examples = data.examples(data.samples)
        self.class_ids = self._examples.class_ids.numpy()
        if missing := set(range(len(self._labels))) - set(self.class_ids.tolist()):
            raise TrainingError(f"no image of {self._labels[min(missing)]} is left to train on: leave --test out")
        num_views = 0 if data.config.augment == "none" else MAX_VIEWS
        model = data.network.backbone if stages is None else _BothStages(stages)
        self._frozen = FrozenModel(model, data.contract, context, len(data.samples) * (1 + num_views))
        self.has_outliers, self._has_stages = False, stages is not None
        nothing = np.zeros(0, int)
        no_features = np.zeros((0, data.network.feature_size), np.float32)
        self.rows = Rows(no_features, nothing, nothing, nothing, nothing.astype(bool))
        self.rounds = np.zeros(0, int)
        self._activations: list[torch.Tensor] = []
        self._strength = DEFAULT_STRENGTH
        self._max_bytes = share_of_memory(MEMORY_SHARE, MAX_BYTES)

    @property
    def activations(self) -> torch.Tensor:
        """The activations between the stages, float16 [N, ...], of the first N rows. Empty without `stages`."""
        return torch.cat(self._activations) if self._activations else torch.empty(0)

    def fit(self) -> Result:
        """Fit the head. The result's logits are of the validation samples of all folds, in their order."""
        started = time.monotonic()
        config, network, num_labels = self.data.config, self.data.network, len(self._labels)
        fold_ids = np.full(len(self.class_ids), -1)
        for number, fold in enumerate(self._folds):
            fold_ids[self.data.indices(fold.validation)] = number
        self._add(self._examples.images, self.class_ids, fold_ids, np.full(len(fold_ids), -1), 0)
        history = [self._evaluate_round(1)]
        augmentation = self.data.augmentation(self.data.samples)
        if augmentation.has_outliers:
            self.has_outliers = True
            network.add_unknown()
        background_ids = self._fold_ids_of_backgrounds(fold_ids)
        for number in range(1, 1 + (0 if config.augment == "none" else MAX_VIEWS)):
            views = AugmentedViews(augmentation, config.seed, number)
            self._add(views, self.class_ids, fold_ids, background_ids[views.backgrounds], number)
            if self.has_outliers:
                outliers = OutlierViews(augmentation, config.seed, number, len(fold_ids) // num_labels)
                nobody = np.full(len(outliers), -1)
                self._add(outliers, nobody, nobody, background_ids[outliers.backgrounds], number)
            history.append(self._evaluate_round(1 + number))
            losses = [metrics["validation_loss"] for metrics in history]
            if losses[0] is not None and min(losses[-PATIENCE:]) >= min(losses[:-PATIENCE], default=np.inf):
                break
        head = fit_ridge(self.rows, num_labels, outliers=self.has_outliers)
        self._strength = head.strength
        set_head(network.head, head)
        order = self.data.indices([sample for fold in self._folds for sample in fold.validation])
        logits = np.zeros((len(fold_ids), head.bias.size), np.float32)
        logits[self.rows.evaluated] = head.held_out_logits
        contract, probabilities = calibrate(self.data.contract, logits[order], self.class_ids[order], self.has_outliers)
        correct = probabilities.argmax(1) == self.class_ids[order]
        trials = [make_trial(Ridge.name, correct, time.monotonic() - started)]
        return Result(self.data, self._folds, network, contract, Ridge.name, logits[order], history, trials)

    def is_kept_without(self, fold: Split) -> np.ndarray:
        """Return which rows neither belong to a fold's validation samples nor show their backgrounds, bool [N]."""
        fold_ids = np.unique(self.rows.fold_ids[self.data.indices(fold.validation)])
        return ~np.any([self.rows.in_fold(fold_id) for fold_id in fold_ids], axis=0)

    def fit_without(self, fold: Split) -> RidgeHead:
        """Return a head that never saw a fold's validation samples."""
        rows = self.rows.select(self.is_kept_without(fold))
        return fit_ridge(rows, len(self._labels), self._strength, evaluate=False, outliers=self.has_outliers)

    def _add(
        self,
        images: Sequence[np.ndarray],
        class_ids: np.ndarray,
        fold_ids: np.ndarray,
        background_ids: np.ndarray,
        number: int,
    ) -> None:
        """Add a row for each image; those of round 0 are no views."""
        if number == 0 and not self._has_stages:
            num_features = self.data.network.feature_size
            features, activations = extract_stored(self._frozen, images, num_features, self._context), []
        else:
            features, *activations = self._frozen.run(images)
        kept = sum(one.nbytes for one in [*self._activations, *activations])
        if number == 0 or (kept <= self._max_bytes and len(self.activations) == len(self.rounds)):
            self._activations += activations
        is_view = np.full(len(fold_ids), number > 0)
        self.rows += Rows(features.cpu().numpy(), class_ids, fold_ids, background_ids, is_view)
        self.rounds = np.append(self.rounds, np.full(len(fold_ids), number))

    def _fold_ids_of_backgrounds(self, fold_ids: np.ndarray) -> np.ndarray:
        """Return the fold of each recorded background, in the augmentation's order, and -1 after the last."""
        fold_ids_of: dict[str, set[int]] = {}
        for background, fold_id in zip(self._examples.backgrounds, fold_ids.tolist(), strict=True):
            fold_ids_of.setdefault(background, set()).add(fold_id)
        of_groups = [fold_ids_of[group] for group in background_groups(self.class_ids, self._examples.backgrounds)]
        return np.array([min(own) if len(own) == 1 else -1 for own in of_groups] + [-1])

    def _evaluate_round(self, number: int) -> dict:
        """Fit a head to the rows so far, and return its metrics on the validation samples."""
        num_labels, evaluated = len(self._labels), self.rows.evaluated
        head = fit_ridge(self.rows, num_labels, DEFAULT_STRENGTH, outliers=self.has_outliers)
        loss = cross_entropy(head.logits(self.rows.features[: len(self.class_ids)]), self.class_ids)
        metrics = {"epoch": number, "loss": loss, "validation_loss": None, "validation_accuracy": None}
        if len(evaluated):
            class_ids = self.class_ids[evaluated]
            metrics["validation_loss"] = cross_entropy(head.held_out_logits, class_ids)
            correct = head.held_out_logits[:, :num_labels].argmax(1) == class_ids
            metrics["validation_accuracy"] = float(correct.mean())
        self._context.progress.begin(Ridge.name, 1 + MAX_VIEWS, len(self.class_ids), number)
        self._context.progress.epoch(metrics)
        return metrics


@torch.no_grad()
def set_head(module: nn.Module, head: RidgeHead) -> None:
    """Copy a head into a `sqrt` head of a network."""
    linear = cast(nn.Linear, module.get_submodule("1"))
    linear.weight.copy_(torch.from_numpy(head.weight.T))
    linear.bias.copy_(torch.from_numpy(head.bias))


class _BothStages(nn.Module):
    """Returns the features and the activations between the stages."""

    def __init__(self, stages: Stages):
        super().__init__()
        self.first, self.last = stages.first, stages.last

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations = self.first(images)
        return self.last(activations), activations
