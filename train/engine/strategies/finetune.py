"""The strategy `finetune`: train the last stages of the backbone, too, beginning with the head of the strategy `ridge`.

The first stages stay frozen. Their activations were computed once for each image and view, so an epoch is short.

Each fold leaves out some scenes: a network is trained without them and evaluated on them. The final network is the mean
of the folds' networks (model soup, Wortsman 2022). So it has learned from all scenes without another training. And each
of them is the mean of its weights before and after training (WiSE-FT, Wortsman 2022): in new scenes that is more
accurate than either.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from teachcam.calibration import calibrate
from teachcam.collect.split import Split, merge_into_folds
from teachcam.errors import TrainingError
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.loop import Batch, History, Loop, derive_seed, fill_batch
from teachcam.train.engine.result import Result
from teachcam.train.engine.strategies.base import make_trial
from teachcam.train.engine.strategies.ridge import Ridge, RidgeTrainer, set_head
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.backbones import freeze_first_layers, half_precision
from teachcam.train.model.stages import Stages, divide

NUM_FOLDS = 3
TUNED_WEIGHT = 0.5  # of the weights after training, in the mean with those before
EVALUATION_BATCH = 64  # rows
TOO_FEW_SCENES = "there are too few scenes to evaluate it on: record each label in another place, too"


class FineTune(Ridge):
    """Trains the last stages of the backbone, too."""

    name = "finetune"
    settings = TrainConfig(epochs=12, lr=1e-3, backbone_lr=1e-3, trainable_fraction=0.55)
    unused = ("patience", "progressive_resize")
    needed_memory = 2.2e9

    def fit(self, data: TrainingData, folds: list[Split], context: Context) -> Result:
        """Fit the head, then train without each of a few folds."""
        ridge = RidgeTrainer(data, folds, context, self.stages(data))
        by_ridge, few_folds = ridge.fit(), self.few_folds(data, folds)
        if not few_folds:
            raise TrainingError(f"--strategy {self.name}: {TOO_FEW_SCENES}")
        tuned, _ = FineTuner(ridge, few_folds, data.config.training, context).fit()
        return replace(tuned, trials=by_ridge.trials + tuned.trials)

    def stages(self, data: TrainingData) -> Stages:
        """Return the backbone in two parts, of which the last is trained."""
        fraction = data.config.training.trainable_fraction
        return divide(data.network.eval().backbone, fraction, data.contract.input_size)

    def few_folds(self, data: TrainingData, folds: list[Split]) -> list[Split]:
        """Return the folds merged into a few, because each is a training; [] if there are too few scenes."""
        by_scenes = [fold for fold in folds if fold.validation_scenes or data.config.split == "frames"]
        return merge_into_folds(data.samples, by_scenes, data.config.folds or NUM_FOLDS)


class FineTuner:
    """Trains copies of a network whose head was fitted by a RidgeTrainer, each without one fold.

    Attributes:
        folds: Folds, of which each holds out some of the samples.
    """

    def __init__(self, ridge: RidgeTrainer, folds: list[Split], config: TrainConfig, context: Context):
        """Store what to train.

        Args:
            ridge: Has fitted the head, and kept the activations of the stages that `config` leaves frozen.
            folds: Folds of the ridge's samples. Two or more.
            config: Settings of the training.
            context: Surroundings of the training.
        """
        self.folds, self._ridge, self._config, self._context = folds, ridge, config, context
        self._data, self._num_labels = ridge.data, len(ridge.data.contract.labels)
        self._network = copy.deepcopy(ridge.data.network)
        freeze_first_layers(self._network.backbone, 1 - config.trainable_fraction)
        stages = divide(self._network.backbone, config.trainable_fraction, ridge.data.contract.input_size)
        self._model = _LastStages(stages.last, self._network.head, config.dropout, context.device)
        self._activations = ridge.activations

    def fit(self) -> tuple[Result, float]:
        """Train without each fold, and take the mean of the weights.

        Returns:
            The result, whose logits are of the validation samples of all folds, in their order; and for comparison the
            accuracy of heads alone on the same samples, which they had not seen either.
        """
        started = time.monotonic()
        results = self._fit_folds()
        weights = [result["weights"] for result in results]
        mean = {name: torch.stack([own[name] for own in weights]).mean(0) for name in weights[0]}
        self._model.load_state_dict(mean, strict=False)
        freeze_first_layers(self._network.backbone, 0)
        validation = [sample for fold in self.folds for sample in fold.validation]
        class_ids = self._ridge.class_ids[self._data.indices(validation)]
        logits, ridge_logits = (
            torch.cat([one[name] for one in results]).numpy() for name in ("logits", "ridge_logits")
        )
        contract, probabilities = calibrate(self._data.contract, logits, class_ids, self._ridge.has_outliers)
        trials = [make_trial(FineTune.name, probabilities.argmax(1) == class_ids, time.monotonic() - started)]
        history = [_mean_metrics(epochs) for epochs in zip(*(result["history"] for result in results), strict=True)]
        result = Result(self._data, self.folds, self._network, contract, FineTune.name, logits, history, trials)
        return result, float((ridge_logits[:, : self._num_labels].argmax(1) == class_ids).mean())

    def expected_seconds(self) -> float:
        """Return about how long `fit` takes, measured on a few batches."""
        rows = self._rows(self.folds[0], 0)
        few = rows[: 3 * self._config.batch_size]
        loop = self._begin(self.folds[0], replace(self._config, schedule="none"))  # more steps than in an epoch
        loop.train_epoch(loop.module, self._batches(few))  # warms up
        started = time.monotonic()
        loop.train_epoch(loop.module, self._batches(few))
        seconds_per_row = (time.monotonic() - started) / len(few)
        num_rows = len(rows) / len(self.folds[0].train) * sum(len(fold.train) for fold in self.folds)
        return (
            self._config.num_epochs * num_rows * seconds_per_row / min(len(self.folds), self._context.processes.count)
        )

    def _fit_folds(self) -> list[dict]:
        """Return the results of all folds. Each process trains some of them."""
        processes, state = self._context.processes, self._context.state
        results: list[dict] = []
        for start in range(0, len(self.folds), processes.count):
            numbers = range(start, min(start + processes.count, len(self.folds)))
            saved = [state.read(f"finetune{number}") for number in numbers]
            own = start + processes.rank
            is_due = own in numbers and saved[own - start] is None
            trained: list[Any] = processes.gather_objects(self._fit_fold(own) if is_due else None)
            for number, before, now in zip(numbers, saved, trained, strict=False):  # there may be more processes
                results.append(before or now)
                state.write(f"finetune{number}", partial(results.__getitem__, number), last=True)
        return results

    def _fit_fold(self, number: int) -> dict:
        """Train without a fold's validation samples.

        Returns:
            `weights` of the last stages and the head; `logits` of the validation samples, float32 [N, num_outputs];
            `ridge_logits`, the same before the training; and `history`, the metrics of each epoch.
        """
        fold, config = self.folds[number], self._config
        loop, validation = self._begin(fold, config), self._data.indices(fold.validation)
        before = copy.deepcopy(loop.module.state_dict())
        ridge_logits = self._logits(loop.module, validation)

        def begin_epoch(epoch: int) -> tuple[nn.Module, Iterator[Batch]]:
            torch.manual_seed(derive_seed(config.seed, number, epoch))  # of the order and the dropout
            cast(_LastStages, loop.module).dropout.train()
            return loop.module, self._batches(self._rows(fold, epoch))

        name = f"finetune {number + 1} of {len(self.folds)}"
        epochs = loop.fit(name, begin_epoch, lambda: self._logits(loop.trained, validation))
        after = loop.trained.state_dict()
        weights = {name: old.lerp(after[name], TUNED_WEIGHT) for name, old in before.items() if old.is_floating_point()}
        loop.module.load_state_dict(weights, strict=False)
        logits = self._logits(loop.module, validation)
        weights = {name: value.cpu() for name, value in weights.items()}
        return {"weights": weights, "logits": logits, "ridge_logits": ridge_logits, "history": epochs}

    def _begin(self, fold: Split, config: TrainConfig) -> Loop:
        """Return the training of a copy of the model, whose head never saw the fold's validation samples."""
        model, device = copy.deepcopy(self._model), self._context.device
        set_head(model.head, self._ridge.fit_without(fold))
        model.to(device).to(memory_format=torch.channels_last).eval()  # batch norm keeps its statistics
        backbone = [parameter for parameter in model.last.parameters() if parameter.requires_grad]
        groups = [(backbone, config.backbone_lr), (model.head.parameters(), config.lr)]
        num_rows = max(len(self._rows(fold, epoch)) for epoch in range(self._config.epochs))
        class_ids = torch.from_numpy(self._ridge.class_ids)
        train, validation = (class_ids[self._data.indices(part)] for part in (list(fold.train), fold.validation))
        history = History(train, validation, self._num_labels)
        return Loop(model, groups, config, num_rows, history, self._context, model.dtype)

    def _rows(self, fold: Split, epoch: int) -> np.ndarray:
        """Return the rows to train on in an epoch: a view of each image, and outliers; int [N]."""
        rounds = self._ridge.rounds[: len(self._activations)]
        views = sorted(set(rounds.tolist()) - {0}) or [0]
        kept = self._ridge.is_kept_without(fold)[: len(rounds)]
        return np.flatnonzero(kept & (rounds == views[epoch % len(views)]))

    def _batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Yield batches of these rows, in random order."""
        device, started = self._context.device, time.monotonic()
        own = self._ridge.rows
        targets = own.targets(self._num_labels, self._ridge.has_outliers)
        weights = own.weights / own.weights[rows].mean()
        size = min(self._config.batch_size, len(rows))
        for batch in (rows[part.numpy()] for part in torch.randperm(len(rows)).split(size)):
            filled = fill_batch(batch, size, device)
            shares = torch.from_numpy(weights[filled] / len(batch)).float()
            shares[len(batch) :] = 0.0
            own_targets = torch.from_numpy(targets[filled]).float()
            yield Batch(self._inputs(filled), own_targets, shares, len(batch)).to(device)
        self._context.count_images(len(rows), started)

    def _logits(self, model: nn.Module, rows: np.ndarray) -> torch.Tensor:
        """Return the logits of rows, float32 [N, num_outputs] on the CPU."""
        model, logits = model.eval(), []
        with torch.no_grad():
            for part in (rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)):
                inputs = self._inputs(fill_batch(part, EVALUATION_BATCH, self._context.device))
                logits.append(model(inputs)[: len(part)].float().cpu())
        return torch.cat(logits)

    def _inputs(self, rows: np.ndarray) -> torch.Tensor:
        """Return the activations of rows on the device."""
        activations = self._activations[rows].to(self._context.device).float()
        return activations.contiguous(memory_format=torch.channels_last) if activations.dim() == 4 else activations


class _LastStages(nn.Module):
    """The last stages of a backbone, and the head."""

    def __init__(self, last: nn.Module, head: nn.Module, dropout: float, device: torch.device):
        super().__init__()
        self.last, self.head, self.dropout = last, head, nn.Dropout(dropout)
        self.dtype = half_precision(device) if device.type == "cuda" else None  # on a CPU float32 was faster

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the logits, [N, num_outputs]."""
        with torch.autocast(activations.device.type, self.dtype, enabled=self.dtype is not None):
            return self.head(self.dropout(self.last(activations).float()))


def _mean_metrics(epochs: tuple[dict, ...]) -> dict:
    """Return the mean of each metric over the folds."""
    return {
        name: value if name == "epoch" else float(np.mean([one[name] for one in epochs]))
        for name, value in epochs[0].items()
    }
