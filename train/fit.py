"""The training loops: the head alone on features that are computed once, or layers of the backbone with it.

Both leave the network with the weights of the epoch that did best on the held-out examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from train.augment import Augmentation
from train.backbones import Network, Normalise, freeze_front, half_precision, scaled_size
from train.contract import Contract, preprocess
from train.examples import Examples

AVERAGE = 0.98  # how much of the averaged weights stays at each step: the average reaches back about 50 steps
NOTHING = 1.5  # the weight of pictures of no label, of which there is one for every eight frames
OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups, **more: torch.optim.SGD(groups, momentum=0.9, **more),
}
SCHEDULES = ("one-cycle", "cosine", "step", "none")


@dataclass(frozen=True)
class Settings:
    """How to train. The rates are the highest that the schedule reaches."""

    epochs: int
    lr: float  # of the head
    backbone_lr: float = 0.0
    learns: float = 0.0  # the share of the backbone's layers, counted from the head, that learn too
    head_first: bool = False  # whether the head learns alone before the others begin
    gradual: bool = False  # whether they begin to learn one after another, the last layer first
    scratch: bool = False  # whether the backbone comes untrained: its batch norm then learns its statistics
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    schedule: str = "one-cycle"  # step: a tenth after each third of the epochs
    batch: int = 32
    patience: int | None = None  # stop after so many epochs without a better held-out loss
    dropout: float = 0.2  # of the features, before the head
    sizes: tuple[float, ...] = (1.0,)  # of the input, in shares, as the epochs go by: small ones are quicker
    seed: int = 0


def fit_head(
    network: Network,
    contract: Contract,
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    settings: Settings,
    on_epoch: Callable[[dict], None] = lambda _: None,
) -> list[dict]:
    """Train a new head on features float32 [N, D] and class ids int64 [N]; return a line for each epoch."""
    features, class_ids = train
    device = features.device
    # Learning on standardised features, then folding that into the head, makes one rate fit every backbone.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-3
    features, held_features = (features - mean) / std, (held_out[0] - mean) / std
    head = network.head.to(device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    loss_of = balanced_loss(class_ids, len(contract.labels))
    log = _Log(loss_of, held_out[1], settings.patience, on_epoch)
    optimizer, schedule = _optimizer([(head.parameters(), settings.lr)], settings, len(features))
    shuffle = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        total = 0.0
        for batch in torch.randperm(len(features), generator=shuffle).split(settings.batch):
            batch = batch.to(device)
            loss = loss_of(head(features[batch]), class_ids[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            stop = log.epoch(total / len(features), head(held_features), head)
        if stop:
            break
    head.load_state_dict(log.best)
    with torch.no_grad():
        head.weight /= std
        head.bias -= head.weight @ mean
    return log.lines


def fit(
    network: Network,
    contract: Contract,
    train: Examples,
    held_out: Examples,
    augmentation: Augmentation,
    settings: Settings,
    device: torch.device,
    on_epoch: Callable[[dict], None] = lambda _: None,
) -> list[dict]:
    """Train the head and layers of the backbone on augmented frames; return a line for each epoch.

    `augmentation` is of the same frames as `train`. What is kept is the average of the weights along the way.
    """
    normalise = Normalise(contract).to(device)
    network.to(device, memory_format=torch.channels_last)
    freeze_front(network.backbone, 1 - settings.learns)
    learning = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    groups = [(learning, settings.backbone_lr), (network.head.parameters(), settings.lr)]
    optimizer, schedule = _optimizer(groups, settings, len(train))
    average = AveragedModel(network, avg_fn=_running_average)
    loss_of = balanced_loss(train.class_ids.to(device), len(contract.labels))
    log = _Log(loss_of, held_out.class_ids.to(device), settings.patience, on_epoch)
    dtype = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    rng = np.random.default_rng(settings.seed)
    shuffle = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)  # of the dropout

    def features_of(model: Network, inputs: np.ndarray) -> torch.Tensor:
        inputs = normalise(torch.from_numpy(inputs).to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model.backbone(inputs).float()

    for epoch in range(settings.epochs):
        network.train()
        if settings.gradual:
            freeze_front(network.backbone, 1 - settings.learns * epoch / max(1, settings.epochs - 1))
        if not settings.scratch:
            # A pretrained batch norm keeps its statistics: those of a few dozen frames of one room are no better.
            _batch_norm_to_eval(network.backbone)
        share = settings.sizes[epoch * len(settings.sizes) // settings.epochs]
        now = replace(contract, input_size=scaled_size(network.backbone, contract.input_size, share))
        total = 0.0
        order = torch.randperm(len(train), generator=shuffle).split(settings.batch)
        for batch, inputs in _ahead(order, lambda batch, now=now: _inputs(augmentation, batch, rng, now)):
            logits = network.head(functional.dropout(features_of(network, inputs), settings.dropout))
            loss = loss_of(logits[: len(batch)], train.class_ids[batch].to(device))
            if len(inputs) > len(batch):  # what is of no label should be no label more than another
                loss = loss - NOTHING * functional.log_softmax(logits[len(batch) :], 1).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            average.update_parameters(network)
            total += loss.item() * len(batch)
        model = average.module.eval()
        logits = [torch.empty(0, len(contract.labels), device=device)]
        with torch.no_grad():
            for start in range(0, len(held_out), settings.batch):
                inputs = np.stack([preprocess(f, contract) for f in held_out.frames[start : start + settings.batch]])
                logits.append(model.head(features_of(model, inputs)))
        if log.epoch(total / len(train), torch.cat(logits), model):
            break
    network.load_state_dict(log.best)
    freeze_front(network.backbone, 0)
    return log.lines


def balanced_loss(class_ids: torch.Tensor, labels: int) -> Callable[..., torch.Tensor]:
    """Return a cross entropy in which every label counts the same, however many of the `class_ids` are of it."""
    counts = torch.bincount(class_ids, minlength=labels).clamp(min=1)
    weights = len(class_ids) / (labels * counts.float())

    return partial(functional.cross_entropy, weight=weights)


class _Log:
    """A line for each epoch, and the weights of the best one: of the last one where nothing is held out."""

    def __init__(self, loss: Callable, held_out_ids: torch.Tensor, patience: int | None, on_epoch: Callable):
        self.lines: list[dict] = []
        self.best: dict[str, torch.Tensor] = {}
        self._loss, self._held_out_ids, self._patience, self._on_epoch = loss, held_out_ids, patience, on_epoch
        self._least, self._since = math.inf, 0

    def epoch(self, loss: float, held_out_logits: torch.Tensor, module: nn.Module) -> bool:
        """Note an epoch; return whether to stop."""
        line = {"epoch": len(self.lines) + 1, "loss": loss, "held_out_loss": None, "held_out_accuracy": None}
        ids = self._held_out_ids
        if len(ids):
            line["held_out_loss"] = self._loss(held_out_logits.float(), ids).item()
            line["held_out_accuracy"] = (held_out_logits.argmax(1) == ids).float().mean().item()
        self.lines.append(line)
        self._on_epoch(line)
        self._since += 1
        if not len(ids) or line["held_out_loss"] < self._least:
            self._least, self._since = line["held_out_loss"] if len(ids) else math.inf, 0
            self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return self._patience is not None and self._since >= self._patience


def _optimizer(groups: list, settings: Settings, examples: int):
    """Return the optimizer of (parameters, highest rate) groups, and the schedule of its rates, step by step."""
    groups = [(list(parameters), rate) for parameters, rate in groups]
    make = OPTIMIZERS[settings.optimizer]
    optimizer = make([{"params": part, "lr": rate} for part, rate in groups], weight_decay=settings.weight_decay)
    steps = settings.epochs * math.ceil(examples / settings.batch)
    schedules = torch.optim.lr_scheduler
    if settings.schedule == "one-cycle":
        rates = [rate for _, rate in groups]
        return optimizer, schedules.OneCycleLR(optimizer, rates, total_steps=max(2, steps), pct_start=0.2)
    if settings.schedule == "cosine":
        return optimizer, schedules.CosineAnnealingLR(optimizer, steps)
    third = max(1, steps // 3) if settings.schedule == "step" else steps + 1
    return optimizer, schedules.StepLR(optimizer, third)


def _running_average(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Exponential, with a shorter memory at first: a short training must not end near where it began."""
    return average.lerp(now, max(1 - AVERAGE, 9 / (10 + steps.item())))


def _batch_norm_to_eval(backbone: nn.Module) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def _inputs(augmentation: Augmentation, batch: torch.Tensor, rng: np.random.Generator, contract: Contract):
    frames = [augmentation(index, rng) for index in batch.tolist()]
    if augmentation.knows_nothing:
        frames += [augmentation.nothing(rng) for _ in range(len(batch) // 8)]
    return np.stack([preprocess(frame, contract) for frame in frames])


def _ahead(batches: tuple[torch.Tensor, ...], make: Callable) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield each batch and what `make` makes of it; the next one is made while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, batches[0])
        for batch, following in zip(batches, (*batches[1:], None), strict=True):
            inputs = coming.result()
            if following is not None:
                coming = pool.submit(make, following)
            yield batch, inputs
