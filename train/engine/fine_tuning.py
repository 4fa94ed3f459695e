"""The strategy `finetune`: train the last stages of the backbone, too, beginning with the head of the strategy `ridge`.

The first stages stay frozen. Their activations were computed once for each image and view, so an epoch is short.

Each fold leaves out some scenes: a network is trained without them and judged by them. The final network is the mean of
the folds' networks (model soup, Wortsman 2022). So it has learned from all scenes without another training. And each of
them is the mean of its weights before and after training (WiSE-FT, Wortsman 2022): in new scenes that is more accurate
than either.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from teachcam.calibration import calibrate
from teachcam.collect.split import Split
from teachcam.errors import TrainingError
from teachcam.ridge import Rows
from teachcam.train.config.train_config import FINETUNE, TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.loader import derive_seed, fill_batch
from teachcam.train.engine.optimizer import make_optimizer, take_step
from teachcam.train.engine.ridge_strategy import RidgeTrainer, set_head
from teachcam.train.engine.strategies import StrategyResult, make_trial
from teachcam.train.engine.trainer import update_average
from teachcam.train.model.backbones import freeze_first_layers, half_precision
from teachcam.train.model.stages import divide

TUNED_WEIGHT = 0.5  # of the weights after training, in the mean with those before
EVALUATION_BATCH = 64  # rows


class FineTuner:
    """Trains copies of a network whose head was fitted by a RidgeTrainer, each without one fold.

    Attributes:
        folds: each leaves out some of the samples.
    """

    def __init__(self, ridge: RidgeTrainer, folds: list[Split], config: TrainConfig, context: Context):
        """Store what to train.

        Args:
            ridge: has fitted the head, and kept the activations of the stages that `config` leaves frozen.
            folds: each leaves out some of the ridge's samples. Two or more.
            config: how to train.
            context: what the training runs with.
        """
        self.folds, self._ridge, self._config, self._context = folds, ridge, config, context
        self._network = copy.deepcopy(ridge.network)
        freeze_first_layers(self._network.backbone, 1 - config.trainable_fraction)
        stages = divide(self._network.backbone, config.trainable_fraction, ridge.contract.input_size)
        self._model = _LastStages(stages.last, self._network.head)
        self._activations = ridge.activations

    def fit(self) -> tuple[StrategyResult, float]:
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
        class_ids = self._ridge.class_ids[self._ridge.indices(validation)]
        logits, ridge_logits = (
            torch.cat([one[name] for one in results]).numpy() for name in ("logits", "ridge_logits")
        )
        contract, probabilities = calibrate(self._ridge.contract, logits, class_ids, self._ridge.has_outliers)
        trials = [make_trial(FINETUNE, probabilities.argmax(1) == class_ids, time.monotonic() - started)]
        history = [_mean_metrics(epochs) for epochs in zip(*(result["history"] for result in results), strict=True)]
        result = StrategyResult(self._network, contract, FINETUNE, logits, probabilities, history, trials)
        return result, float((ridge_logits[:, : len(contract.labels)].argmax(1) == class_ids).mean())

    def expected_seconds(self) -> float:
        """Return about how long `fit` takes, measured on a few batches."""
        rows = self._rows(self.folds[0], 0)
        few = rows[: 3 * self._config.batch_size]
        training = self._begin(self.folds[0], replace(self._config, schedule="none"))  # more steps than in an epoch
        training.run_epoch(few)  # warms up
        started = time.monotonic()
        training.run_epoch(few)
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
            trained = processes.gather_objects(self._fit_fold(own) if is_due else None)
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
        fold, config, context = self.folds[number], self._config, self._context
        training, validation = self._begin(fold, config), self._ridge.indices(fold.validation)
        class_ids = torch.from_numpy(self._ridge.class_ids[validation])
        before = copy.deepcopy(training.model.state_dict())
        ridge_logits = training.logits(training.model, validation)
        history: list[dict] = []
        context.progress.begin(f"finetune {number + 1} of {len(self.folds)}", config.num_epochs, len(fold.train))
        for epoch in range(config.num_epochs):
            torch.manual_seed(derive_seed(config.seed, number, epoch))  # of the order and the dropout
            rows, started = self._rows(fold, epoch), time.monotonic()
            loss = training.run_epoch(rows)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} after {epoch} epochs: give a smaller --lr")
            context.count_images(len(rows), started)
            context.progress.advance(len(fold.train))
            logits = training.logits(training.average.module, validation)
            labels = logits[:, : len(self._ridge.contract.labels)].argmax(1)
            accuracy = (labels == class_ids).float().mean().item()
            validation_loss = functional.cross_entropy(logits, class_ids).item()
            metrics = {"loss": loss, "validation_loss": validation_loss, "validation_accuracy": accuracy}
            history.append({"epoch": epoch + 1, **metrics})
            context.progress.epoch(history[-1])
        after = training.average.module.state_dict()
        weights = {name: old.lerp(after[name], TUNED_WEIGHT) for name, old in before.items() if old.is_floating_point()}
        training.model.load_state_dict(weights, strict=False)
        logits = training.logits(training.model, validation)
        weights = {name: value.cpu() for name, value in weights.items()}
        return {"weights": weights, "logits": logits, "ridge_logits": ridge_logits, "history": history}

    def _begin(self, fold: Split, config: TrainConfig) -> _Training:
        """Return the training of a copy of the model, whose head never saw the fold's validation samples."""
        model = copy.deepcopy(self._model)
        set_head(model.head, self._ridge.fit_without(fold))
        num_rows = max(len(self._rows(fold, epoch)) for epoch in range(self._config.epochs))
        rows, device = self._ridge.rows, self._context.device
        return _Training(model, rows, self._activations, config, num_rows, device, self._ridge.has_outliers)

    def _rows(self, fold: Split, epoch: int) -> np.ndarray:
        """Return the rows to train on in an epoch: a view of each image, and outliers; int [N]."""
        rounds = self._ridge.rounds[: len(self._activations)]
        views = sorted(set(rounds.tolist()) - {0}) or [0]
        kept = self._ridge.is_kept_without(fold)[: len(rounds)]
        return np.flatnonzero(kept & (rounds == views[epoch % len(views)]))


class _Training:
    """The training of one network: its weights, their running average, and the optimizer."""

    def __init__(
        self,
        model: _LastStages,
        rows: Rows,
        activations: torch.Tensor,
        config: TrainConfig,
        num_rows: int,
        device: torch.device,
        has_outliers: bool,
    ):
        self.model = model.to(device).to(memory_format=torch.channels_last).eval()  # batch norm keeps its statistics
        self.average = AveragedModel(self.model, multi_avg_fn=update_average)
        self._activations, self._config, self._device = activations, config, device
        self._targets = torch.from_numpy(rows.targets(1 + rows.class_ids.max(), has_outliers)).float()
        self._weights = torch.from_numpy(rows.weights).float()
        backbone = [parameter for parameter in self.model.last.parameters() if parameter.requires_grad]
        groups = [(backbone, config.backbone_lr), (self.model.head.parameters(), config.lr)]
        self._optimizer, self._schedule = make_optimizer(groups, config, num_rows)
        self._dtype = half_precision(device) if device.type == "cuda" else None  # on a CPU float32 was faster
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)

    def run_epoch(self, rows: np.ndarray) -> float:
        """Train on these rows once, in random order. Returns the mean loss."""
        total, weights = torch.zeros((), device=self._device), self._weights[rows] / self._weights[rows].mean()
        batch_size = min(self._config.batch_size, len(rows))
        for batch in (part.numpy() for part in torch.randperm(len(rows)).split(batch_size)):
            logits = self._run(self.model, rows[batch], batch_size, self._config.dropout)
            loss = functional.cross_entropy(logits, self._targets[rows[batch]].to(self._device), reduction="none")
            loss = (loss * weights[batch].to(self._device)).mean()
            self._optimizer.zero_grad()
            self._scaler.scale(loss).backward()
            take_step(self.model, self._optimizer, self._schedule, self._scaler)
            self.average.update_parameters(self.model)
            total += loss.detach() * len(batch)
        return total.item() / len(rows)

    @torch.no_grad()
    def logits(self, model: nn.Module, rows: np.ndarray) -> torch.Tensor:
        """Return the logits of rows, float32 [N, num_outputs] on the CPU."""
        parts = [rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)]
        return torch.cat([self._run(model, part, EVALUATION_BATCH).float().cpu() for part in parts])

    def _run(self, model: nn.Module, rows: np.ndarray, batch_size: int, dropout: float = 0.0) -> torch.Tensor:
        """Return the logits of at most `batch_size` rows."""
        activations = self._activations[fill_batch(rows, batch_size, self._device)].to(self._device).float()
        if activations.dim() == 4:
            activations = activations.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            return model(activations, dropout)[: len(rows)]


class _LastStages(nn.Module):
    """The last stages of a backbone, and the head."""

    def __init__(self, last: nn.Module, head: nn.Module):
        super().__init__()
        self.last, self.head = last, head

    def forward(self, activations: torch.Tensor, dropout: float) -> torch.Tensor:
        """Return the logits, [N, num_outputs]."""
        features = self.last(activations).float()
        return self.head(functional.dropout(features, dropout, training=dropout > 0))


def _mean_metrics(epochs: tuple[dict, ...]) -> dict:
    """Return the mean of each metric over the folds."""
    return {
        name: value if name == "epoch" else float(np.mean([one[name] for one in epochs]))
        for name, value in epochs[0].items()
    }
