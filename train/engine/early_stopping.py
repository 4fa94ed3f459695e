"""What became of a training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from teachcam.errors import TrainingError


class History:
    """A line for each epoch, and the weights of the best one: of the last one where nothing is held out."""

    def __init__(self, loss: Callable, held_out_ids: torch.Tensor, patience: int | None, on_epoch: Callable):
        self.lines: list[dict] = []
        self.best: dict[str, torch.Tensor] = {}
        self._loss, self._held_out_ids, self._patience, self._on_epoch = loss, held_out_ids, patience, on_epoch
        self._least, self._since = math.inf, 0

    @property
    def stops(self) -> bool:
        """Whether nothing has become better for too long."""
        return self._patience is not None and self._since >= self._patience

    def epoch(self, loss: float, held_out_logits: torch.Tensor, module: nn.Module, **more: float) -> None:
        """Note an epoch. Raises TrainingError where the loss is no number any more."""
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} after {len(self.lines)} epochs: give a smaller --lr")
        line = {"epoch": len(self.lines) + 1, "loss": loss, "held_out_loss": None, "held_out_accuracy": None, **more}
        ids = self._held_out_ids
        if len(ids):
            line["held_out_loss"] = self._loss(held_out_logits.float(), ids).item()
            line["held_out_accuracy"] = (held_out_logits.argmax(1) == ids).float().mean().item()
        self.lines.append(line)
        self._on_epoch(line)
        self._since += 1
        if not self.best or not len(ids) or line["held_out_loss"] < self._least:
            self._least, self._since = line["held_out_loss"] if len(ids) else math.inf, 0
            self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def state_dict(self) -> dict:
        """Return what `load_state_dict` takes."""
        return {"lines": self.lines, "best": self.best, "least": self._least, "since": self._since}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
        self.lines, self.best, self._least, self._since = (state[name] for name in ("lines", "best", "least", "since"))
