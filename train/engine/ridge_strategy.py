"""The strategy `ridge`: a closed-form head on the frozen backbone's features of the images and of augmented views.

There is no separate validation set. Each image is evaluated with a head that never saw its scene, so all images serve
both for training and for validation, and nothing has to be trained twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from teachcam.calibration import calibrate, cross_entropy
from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split
from teachcam.contract import Contract
from teachcam.errors import TrainingError
from teachcam.processor import share_of_memory
from teachcam.ridge import DEFAULT_STRENGTH, RidgeHead, Rows, fit_ridge
from teachcam.train.augment.foreground import background_groups
from teachcam.train.augment.views import AugmentedViews, OutlierViews
from teachcam.train.config.train_config import RIDGE
from teachcam.train.data.dataset import Dataset
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import FrozenModel, extract_cached
from teachcam.train.engine.strategies import StrategyResult, make_trial
from teachcam.train.engine.training_data import make_augmentation
from teachcam.train.model.backbones import Network
from teachcam.train.model.stages import Stages

MAX_VIEWS = 4  # augmented copies of each image; in new rooms more gained nothing
MEMORY_SHARE, MAX_BYTES = 0.15, 2**30  # for activations; those of further views are not kept
PATIENCE = 3  # rounds: after so many without a lower validation loss, no more views are made


class RidgeTrainer:
    """Fits the head of a network, in rounds: first to the images, then to one more view of each in every round.

    Attributes:
        network: its head is changed; its backbone is not.
        contract: labels, input size and normalization.
        samples: what is trained on.
        splits: each holds out a part of the samples, to evaluate them.
        class_ids: int [N], of the samples.
        has_outliers: whether views of bare backgrounds, which belong to no label, are trained on. The head then has a
            last output for them.
        rows: what the head was fitted to. The fold id of a row is the index of the split that has it for validation.
        rounds: int [N], the round in which each row was added, from 0.
    """

    def __init__(
        self,
        network: Network,
        contract: Contract,
        dataset: Dataset,
        samples: list[Sample],
        splits: list[Split],
        context: Context,
        augment: str = "room",
        seed: int = 0,
        stages: Stages | None = None,
    ):
        """Store what to train on.

        Args:
            network: has a `sqrt` head.
            contract: labels, input size and normalization.
            dataset: holds the images.
            samples: what to train on.
            splits: of the samples, from `leave_one_out` or `random_folds`.
            context: what the training runs with.
            augment: kind of augmentation: room, light or none. With `none` there are no views.
            seed: of the views.
            stages: the backbone in two parts, to keep the activations between them.

        Raises:
            TrainingError: A label has no image.
        """
        self.network, self.contract, self.samples, self.splits = network, contract, samples, splits
        self._examples = dataset.examples(samples)
        self.class_ids = self._examples.class_ids.numpy()
        if missing := set(range(len(contract.labels))) - set(self.class_ids.tolist()):
            raise TrainingError(f"no image of {contract.labels[min(missing)]} is left to train on: leave --test out")
        self._index = {sample: index for index, sample in enumerate(samples)}
        self._context, self._augment, self._seed = context, augment, seed
        num_views = 0 if augment == "none" else MAX_VIEWS
        model = network.backbone if stages is None else _BothStages(stages)
        self._frozen = FrozenModel(model, contract, context, len(samples) * (1 + num_views))
        self.has_outliers, self._has_stages = False, stages is not None
        nothing = np.zeros(0, int)
        no_features = np.zeros((0, network.feature_size), np.float32)
        self.rows = Rows(no_features, nothing, nothing, nothing, nothing.astype(bool))
        self.rounds = np.zeros(0, int)
        self._activations: list[torch.Tensor] = []
        self._strength = DEFAULT_STRENGTH
        self._max_bytes = share_of_memory(MEMORY_SHARE, MAX_BYTES)

    @property
    def activations(self) -> torch.Tensor:
        """The activations between the stages, float16 [N, ...], of the first N rows. Empty without `stages`."""
        return torch.cat(self._activations) if self._activations else torch.empty(0)

    def indices(self, samples: list[Sample]) -> np.ndarray:
        """Return the rows of samples without augmentation, int [N]."""
        return np.array([self._index[sample] for sample in samples], int)

    def fit(self) -> StrategyResult:
        """Fit the head. The result's logits are of the validation samples of all splits, in their order."""
        started = time.monotonic()
        parts = np.full(len(self.samples), -1)
        for number, split in enumerate(self.splits):
            parts[self.indices(split.validation)] = number
        self._add(self._examples.images, self.class_ids, parts, np.full(len(parts), -1), 0)
        history = [self._evaluate_round(1)]
        if self._augment != "none":
            augmentation = make_augmentation(self._examples, self.contract.labels, self._augment)
            if augmentation.has_outliers:
                self.has_outliers = True
                self.network.add_unknown()
            background_parts = self._parts_of_backgrounds(parts)
            for number in range(1, 1 + MAX_VIEWS):
                views = AugmentedViews(augmentation, self._seed, number)
                self._add(views, self.class_ids, parts, background_parts[views.backgrounds], number)
                if self.has_outliers:
                    outliers = OutlierViews(augmentation, self._seed, number, len(parts) // len(self.contract.labels))
                    nobody = np.full(len(outliers), -1)
                    self._add(outliers, nobody, nobody, background_parts[outliers.backgrounds], number)
                history.append(self._evaluate_round(1 + number))
                losses = [metrics["validation_loss"] for metrics in history]
                if self.splits and min(losses[-PATIENCE:]) >= min(losses[:-PATIENCE], default=np.inf):
                    break
        return self._result(history, started)

    def is_kept_without(self, fold: Split) -> np.ndarray:
        """Return which rows neither belong to a fold's validation samples nor show their backgrounds, bool [N]."""
        parts = np.unique(self.rows.fold_ids[self.indices(fold.validation)])
        return ~np.any([self.rows.in_fold(part) for part in parts], axis=0)

    def fit_without(self, fold: Split) -> RidgeHead:
        """Return a head that never saw a fold's validation samples."""
        rows = self.rows.select(self.is_kept_without(fold))
        return fit_ridge(rows, len(self.contract.labels), self._strength, evaluate=False, outliers=self.has_outliers)

    def _add(
        self,
        images: Sequence[np.ndarray],
        class_ids: np.ndarray,
        parts: np.ndarray,
        background_parts: np.ndarray,
        number: int,
    ) -> None:
        """Add a row for each image; those of round 0 are no views."""
        if number == 0 and not self._has_stages:
            features, activations = extract_cached(self._frozen, images, self.network.feature_size, self._context), []
        else:
            features, *activations = self._frozen.run(images)
        kept = sum(one.nbytes for one in [*self._activations, *activations])
        if number == 0 or (kept <= self._max_bytes and len(self.activations) == len(self.rows.fold_ids)):
            self._activations += activations
        self.rows += Rows(features.cpu().numpy(), class_ids, parts, background_parts, np.full(len(parts), number > 0))
        self.rounds = np.append(self.rounds, np.full(len(parts), number))

    def _parts_of_backgrounds(self, parts: np.ndarray) -> np.ndarray:
        """Return the part of each recorded background, in the augmentation's order, and -1 after the last."""
        parts_of: dict[str, set[int]] = {}
        for background, part in zip(self._examples.backgrounds, parts.tolist(), strict=True):
            parts_of.setdefault(background, set()).add(part)
        of_groups = [parts_of[group] for group in background_groups(self.class_ids, self._examples.backgrounds)]
        return np.array([min(own) if len(own) == 1 else -1 for own in of_groups] + [-1])

    def _evaluate_round(self, number: int) -> dict:
        """Fit a head to the rows so far, and return its metrics on the validation samples."""
        num_labels = len(self.contract.labels)
        head = fit_ridge(self.rows, num_labels, DEFAULT_STRENGTH, outliers=self.has_outliers)
        images = np.arange(len(self.samples))
        evaluated = self.rows.evaluated
        metrics = {
            "epoch": number,
            "loss": cross_entropy(head.logits(self.rows.features[images]), self.class_ids),
            "validation_loss": None,
            "validation_accuracy": None,
        }
        if len(evaluated):
            metrics["validation_loss"] = cross_entropy(head.held_out_logits, self.class_ids[evaluated])
            correct = head.held_out_logits[:, :num_labels].argmax(1) == self.class_ids[evaluated]
            metrics["validation_accuracy"] = float(correct.mean())
        self._context.progress.begin("ridge", 1 + MAX_VIEWS, len(images), number)
        self._context.progress.epoch(metrics)
        return metrics

    def _result(self, history: list[dict], started: float) -> StrategyResult:
        """Fit the final head, with the regularization that is most accurate on the validation samples."""
        head = fit_ridge(self.rows, len(self.contract.labels), outliers=self.has_outliers)
        self._strength = head.strength
        set_head(self.network.head, head)
        order = self.indices([sample for split in self.splits for sample in split.validation])
        logits = np.zeros((len(self.samples), head.bias.size), np.float32)
        logits[self.rows.evaluated] = head.held_out_logits
        contract, probabilities = calibrate(self.contract, logits[order], self.class_ids[order], self.has_outliers)
        correct = probabilities.argmax(1) == self.class_ids[order]
        trials = [make_trial(RIDGE, correct, time.monotonic() - started)]
        return StrategyResult(self.network, contract, RIDGE, logits[order], probabilities, history, trials)


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
