"""The training loop. Every training by gradients goes through it, whatever its inputs are.

head.py                 features, to train the head alone
strategies/finetune.py  activations, to train the last stages of the backbone and the head
trainer.py              augmented images, to train any layers
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from teachcam.errors import TrainingError
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.distributed import ProcessGroup
from teachcam.train.engine.loss import class_weights, weighted_cross_entropy
from teachcam.train.engine.optimizer import make_optimizer

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]  # as AveragedModel has them
AVERAGE_DECAY = 0.98  # of the averaged weights: at each step they keep this share, so they span about 50 steps


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch."""

    inputs: torch.Tensor  # [n, ...], of the model
    targets: torch.Tensor  # float32 [n, num_outputs], the probabilities to learn
    weights: torch.Tensor  # float32 [n]; over all processes, the weighted losses sum up to the batch's loss
    num_images: int  # of the whole batch, for the mean loss of an epoch

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(self.inputs.to(device), self.targets.to(device), self.weights.to(device), self.num_images)


class Loop:
    """Trains a module, epoch by epoch.

    Attributes:
        module: Its weights are trained.
        trained: Has the weights to use: the module, or a copy with the running average of its weights.
        history: The metrics of the epochs, and the best weights.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: list[tuple[Iterable[nn.Parameter], float]],
        config: TrainConfig,
        num_images: int,
        history: History,
        context: Context,
        dtype: torch.dtype | None = None,
        processes: ProcessGroup | None = None,
    ):
        """Make the optimizer, the averaged weights and the gradient scaler.

        Args:
            module: Lies on the device.
            groups: Parameters, each group with its highest learning rate.
            config: Settings of the training.
            num_images: Images of an epoch.
            history: Receives the epochs.
            context: Surroundings of the training.
            dtype: Type that the layers compute in, if it is another than float32.
            processes: Processes that share each batch. By default only this one.
        """
        self.module, self.config, self.history, self.context = module, config, history, context
        self._num_images, self._processes = num_images, processes or ProcessGroup()
        self._optimizer, self._schedule = make_optimizer(groups, config, num_images)
        self._average = AveragedModel(module, multi_avg_fn=update_average) if config.averaged else None
        self._scaler = torch.amp.GradScaler(context.device.type, enabled=dtype == torch.float16)
        self.trained = module if self._average is None else self._average.module
        self._parts: dict[str, Any] = {  # what the next epoch depends on
            "module": module,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "scaler": self._scaler,
            "history": history,
        }
        if self._average is not None:
            self._parts["average"] = self._average

    def fit(
        self,
        name: str,
        begin_epoch: Callable[[int], tuple[nn.Module, Iterable[Batch]]],
        evaluate: Callable[[], torch.Tensor],
        is_saved: bool = False,
    ) -> list[dict]:
        """Train all epochs that are left. The module then has the best weights.

        Args:
            name: Name of the training, for the progress bar and the saved state.
            begin_epoch: Returns the model to train in an epoch, counted from 0, and its batches. The model maps inputs
                to logits, by the module's weights.
            evaluate: Returns the logits of the validation images by `trained`, float [N, num_outputs].
            is_saved: Whether the state is saved after each epoch, and read at the start.

        Returns:
            The metrics of each epoch.
        """
        config, history, context = self.config, self.history, self.context
        if is_saved and (state := context.state.read(name)) is not None:
            self.load_state_dict(state)
        context.progress.begin(name, config.num_epochs, self._num_images, len(history.epochs))
        for epoch in range(len(history.epochs), config.num_epochs):
            if history.should_stop:
                break
            loss, speed = self.train_epoch(*begin_epoch(epoch))
            with torch.no_grad():
                logits = evaluate()
            history.add_epoch(loss, logits, self.trained, **speed)
            context.progress.epoch(history.epochs[-1])
            if is_saved:
                last = history.should_stop or epoch + 1 == config.num_epochs
                context.state.write(name, self.state_dict, last)
        self.module.load_state_dict(history.best_weights)
        return history.epochs

    def train_epoch(self, model: nn.Module, batches: Iterable[Batch]) -> tuple[float, dict[str, float]]:
        """Train on batches. Returns the mean loss, and what is measured of the speed."""
        context = self.context
        total, num_images = torch.zeros((), device=context.device), 0
        started, waited = time.monotonic(), context.data_wait_seconds
        for batch in batches:
            run = partial(self._backward, model, batch)
            total += context.micro_batcher.run_in_chunks(len(batch.inputs), run) * batch.num_images
            self._step()
            num_images += batch.num_images
            context.progress.advance(batch.num_images)
        loss, seconds = self._processes.sum(total).item() / num_images, time.monotonic() - started
        return loss, {
            "images_per_second": round(num_images / seconds, 1),
            "data_wait_fraction": round((context.data_wait_seconds - waited) / seconds, 3),
        }

    def _backward(self, model: nn.Module, batch: Batch, chunks: list[slice]) -> torch.Tensor:
        """Compute a batch's gradients, chunk by chunk; return this process's part of its loss."""
        self._optimizer.zero_grad()
        total = torch.zeros((), device=batch.inputs.device)
        for chunk in chunks:
            loss = weighted_cross_entropy(model(batch.inputs[chunk]), batch.targets[chunk], batch.weights[chunk])
            # DistributedDataParallel averages over the processes, but their parts of the loss have to be summed.
            self._scaler.scale(loss * self._processes.count).backward()
            total += loss.detach()
        return total

    def _step(self) -> None:
        """Change the weights by their gradients, which are clipped, and advance the learning rates."""
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.module.parameters(), self.config.max_gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.module)

    def state_dict(self) -> dict:
        """Return all that the next epoch depends on, for `load_state_dict`."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


class History:
    """The metrics of each epoch, and the weights with the lowest validation loss.

    Without validation images, the weights are those of the last epoch.

    Attributes:
        epochs: Metrics of each epoch.
        best_weights: State dict.
    """

    def __init__(
        self, class_ids: torch.Tensor, validation_ids: torch.Tensor, num_labels: int, patience: int | None = None
    ):
        """Begin without epochs.

        Args:
            class_ids: Class ids of the training images, int64 [N].
            validation_ids: Class ids of the validation images, int64 [M]. M may be 0.
            num_labels: Number of labels.
            patience: Epochs without a lower validation loss after which to stop; None to never stop early.
        """
        self.epochs: list[dict] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self._class_ids, self._validation_ids = class_ids, validation_ids
        self._num_labels, self._patience = num_labels, patience
        self._lowest_loss, self._epochs_since = math.inf, 0

    @property
    def should_stop(self) -> bool:
        """True once `patience` epochs have brought no lower validation loss."""
        return self._patience is not None and self._epochs_since >= self._patience

    def add_epoch(self, loss: float, logits: torch.Tensor, module: nn.Module, **more: float) -> None:
        """Add an epoch, and keep its weights if they are the best.

        Args:
            loss: Training loss.
            logits: Logits of the validation images, float [M, num_outputs]. Those after the labels are for no label.
            module: Has the weights of this epoch.
            **more: Further metrics.

        Raises:
            TrainingError: The loss is infinite or not a number.
        """
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {len(self.epochs)} epochs: give a smaller --lr")
        validation_loss = accuracy = None
        ids = self._validation_ids
        if len(ids):
            weights = class_weights(self._class_ids, logits.shape[1])
            validation_loss = functional.cross_entropy(logits.float(), ids, weight=weights).item()
            accuracy = (logits[:, : self._num_labels].argmax(1) == ids).float().mean().item()
        metrics = {"loss": loss, "validation_loss": validation_loss, "validation_accuracy": accuracy}
        self.epochs.append({"epoch": len(self.epochs) + 1, **metrics, **more})
        self._epochs_since += 1
        if not self.best_weights or validation_loss is None or validation_loss < self._lowest_loss:
            self._lowest_loss, self._epochs_since = math.inf if validation_loss is None else validation_loss, 0
            self.best_weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def state_dict(self) -> dict:
        """Return the state for `load_state_dict`."""
        return {
            "epochs": self.epochs,
            "best_weights": self.best_weights,
            "lowest_loss": self._lowest_loss,
            "epochs_since": self._epochs_since,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.epochs, self.best_weights = state["epochs"], state["best_weights"]
        self._lowest_loss, self._epochs_since = state["lowest_loss"], state["epochs_since"]


def update_average(averages: Tensors, weights: Tensors, steps: torch.Tensor | int) -> None:
    """Average exponentially, over fewer steps at first, so that a short training moves away from its start."""
    decay = min(1 - 9 / (10 + int(steps)), AVERAGE_DECAY)
    get_ema_multi_avg_fn(decay)(averages, weights, steps)


def fill_batch(rows: np.ndarray, size: int, device: torch.device) -> np.ndarray:
    """Return a batch with its rows repeated up to `size` if the device is a GPU, and else the batch as it is.

    cuDNN plans every layer anew for each number of rows that it has not seen.

    Args:
        rows: Rows, [N, ...], at most `size` of them.
        size: Number of rows of a full batch.
        device: Device that the batch will run on.
    """
    return np.resize(rows, (size, *rows.shape[1:])) if device.type == "cuda" else rows


def derive_seed(*key: int) -> int:
    """Return a seed derived from numbers, such as the run's seed and the epoch. The same numbers give the same seed."""
    return int(np.random.default_rng(key).integers(2**63))
