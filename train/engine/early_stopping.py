"""What became of a training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from teachcam.errors import TrainingError


class EarlyStopping:
    """A line for each epoch, and the weights of the best one: of the last one where nothing is held out."""

    def __init__(self, loss: Callable, validation_ids: torch.Tensor, patience: int | None, on_epoch: Callable):
        self.lines: list[dict] = []
        self.best: dict[str, torch.Tensor] = {}
        self._loss, self._validation_ids, self._patience, self._on_epoch = loss, validation_ids, patience, on_epoch
        self._least, self._since = math.inf, 0

    @property
    def stops(self) -> bool:
        """Whether nothing has become better for too long."""
        return self._patience is not None and self._since >= self._patience

    def epoch(self, loss: float, validation_logits: torch.Tensor, module: nn.Module, **more: float) -> None:
        """Note an epoch. Raises TrainingError where the loss is no number any more."""
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {len(self.lines)} epochs: give a smaller --lr")
        line = {
            "epoch": len(self.lines) + 1,
            "loss": loss,
            "validation_loss": None,
            "validation_accuracy": None,
            **more,
        }
        ids = self._validation_ids
        if len(ids):
            line["validation_loss"] = self._loss(validation_logits.float(), ids).item()
            line["validation_accuracy"] = (validation_logits.argmax(1) == ids).float().mean().item()
        self.lines.append(line)
        self._on_epoch(line)
        self._since += 1
        if not self.best or not len(ids) or line["validation_loss"] < self._least:
            self._least, self._since = line["validation_loss"] if len(ids) else math.inf, 0
            self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def state_dict(self) -> dict:
        """Return what `load_state_dict` takes."""
        return {"lines": self.lines, "best": self.best, "least": self._least, "since": self._since}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
        self.lines, self.best, self._least, self._since = (state[name] for name in ("lines", "best", "least", "since"))
