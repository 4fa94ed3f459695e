"""The history of a training, epoch by epoch, its best weights, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from teachcam.errors import TrainingError


class EarlyStopping:
    """Keeps the metrics of each epoch and the weights with the lowest validation loss.

    Without validation images, it keeps the weights of the last epoch.

    Attributes:
        history: the metrics of each epoch.
        best_weights: state dict.
    """

    def __init__(
        self,
        loss: Callable[..., torch.Tensor],
        validation_ids: torch.Tensor,
        patience: int | None,
        on_epoch: Callable[[dict], None],
    ):
        """Begin with an empty history.

        Args:
            loss: `loss(logits, class_ids)`.
            validation_ids: int64 [N], the class ids of the validation images.
            patience: stop after this many epochs without a lower validation loss; None to never stop early.
            on_epoch: called with the metrics of each epoch.
        """
        self.history: list[dict] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self._loss, self._validation_ids, self._patience, self._on_epoch = loss, validation_ids, patience, on_epoch
        self._lowest_loss, self._epochs_since = math.inf, 0

    @property
    def should_stop(self) -> bool:
        """True once `patience` epochs have brought no lower validation loss."""
        return self._patience is not None and self._epochs_since >= self._patience

    def add_epoch(self, loss: float, validation_logits: torch.Tensor, module: nn.Module, **more: float) -> None:
        """Add an epoch to the history, and keep its weights if they are the best.

        Args:
            loss: training loss.
            validation_logits: float [N, num_classes].
            module: has the weights of this epoch.
            **more: further metrics.

        Raises:
            TrainingError: The loss is infinite or not a number.
        """
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {len(self.history)} epochs: give a smaller --lr")
        metrics = {
            "epoch": len(self.history) + 1,
            "loss": loss,
            "validation_loss": None,
            "validation_accuracy": None,
            **more,
        }
        ids = self._validation_ids
        if len(ids):
            metrics["validation_loss"] = self._loss(validation_logits.float(), ids).item()
            metrics["validation_accuracy"] = (validation_logits.argmax(1) == ids).float().mean().item()
        self.history.append(metrics)
        self._on_epoch(metrics)
        self._epochs_since += 1
        if not self.best_weights or not len(ids) or metrics["validation_loss"] < self._lowest_loss:
            self._lowest_loss, self._epochs_since = metrics["validation_loss"] if len(ids) else math.inf, 0
            self.best_weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def state_dict(self) -> dict:
        """Return the state for `load_state_dict`."""
        return {
            "history": self.history,
            "best_weights": self.best_weights,
            "lowest_loss": self._lowest_loss,
            "epochs_since": self._epochs_since,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.history, self.best_weights = state["history"], state["best_weights"]
        self._lowest_loss, self._epochs_since = state["lowest_loss"], state["epochs_since"]
