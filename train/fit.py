"""The training loops: the head alone on features that are computed once, or layers of the backbone with it.

Both leave the network with the weights of the epoch that did best on the held-out examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from train.augment import Augmentation
from train.augment_device import DeviceAugmentation
from train.backbones import DROPOUT, Network, Normalise, freeze_front, half_precision, scaled_size
from train.contract import Contract, preprocess
from train.draws import Plan
from train.examples import Examples
from train.progress import Progress
from train.runtime import Runtime
from train.workers import Workers

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
    dropout: float = DROPOUT  # of the features before a linear head, within an mlp one
    sizes: tuple[float, ...] = (1.0,)  # of the input, in shares, as the epochs go by: small ones are quicker
    seed: int = 0


def fit_head(
    network: Network,
    contract: Contract,
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    settings: Settings,
    progress: Progress | None = None,
) -> list[dict]:
    """Train a new head on features float32 [N, D] and class ids int64 [N]; return a line for each epoch."""
    features, class_ids = train
    device = features.device
    # Learning on standardised features, then folding that into the head, makes one rate fit every backbone.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-3
    features, held_features = (features - mean) / std, (held_out[0] - mean) / std
    head = network.head.to(device)
    _set_dropout(head, settings.dropout)
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    loss_of = balanced_loss(class_ids, len(contract.labels))
    progress = progress or Progress()
    log = _Log(loss_of, held_out[1], settings.patience, progress.epoch)
    optimizer, schedule = _optimizer([(head.parameters(), settings.lr)], settings, len(features))
    for epoch in range(settings.epochs):
        head.train()
        torch.manual_seed(_dice(settings.seed, epoch))
        total = 0.0
        for batch in torch.randperm(len(features)).split(settings.batch):
            batch = batch.to(device)
            loss = loss_of(head(features[batch]), class_ids[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
            progress.frames(len(batch))
        with torch.no_grad():
            log.epoch(total / len(features), head.eval()(held_features), head)
        if log.stops:
            break
    head.load_state_dict(log.best)
    first = head if isinstance(head, nn.Linear) else head[0]
    with torch.no_grad():
        first.weight /= std
        first.bias -= first.weight @ mean
    return log.lines


def fit(
    network: Network,
    contract: Contract,
    train: Examples,
    held_out: Examples,
    augmentation: Augmentation,
    settings: Settings,
    runtime: Runtime,
    name: str = "fit",
) -> list[dict]:
    """Train the head and layers of the backbone on augmented frames; return a line for each epoch.

    `augmentation` is of the same frames as `train`. What is kept is the average of the weights along the way. Under
    its `name` the runtime's journal has where an earlier try got to, if there was one.
    """
    device, workers = runtime.device, runtime.workers
    network.to(device, memory_format=torch.channels_last)
    _set_dropout(network.head, settings.dropout)
    freeze_front(network.backbone, 1 - settings.learns)
    learning = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    groups = [(learning, settings.backbone_lr), (network.head.parameters(), settings.lr)]
    optimizer, schedule = _optimizer(groups, settings, len(train))
    average = AveragedModel(network, avg_fn=_running_average)
    dtype = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    weights = class_weights(train.class_ids, len(contract.labels))
    loss_of = balanced_loss(train.class_ids.to(device), len(contract.labels))
    log = _Log(loss_of, held_out.class_ids.to(device), settings.patience, runtime.progress.epoch)
    parts = {
        "network": network, "average": average, "optimizer": optimizer, "schedule": schedule, "scaler": scaler,
        "log": log,
    }  # fmt: skip
    if (state := runtime.journal.read(name, device)) is not None:
        for part, kept in state.items():
            parts[part].load_state_dict(kept)
    runtime.progress.begin(name, settings.epochs, len(train), len(log.lines))
    on_device = DeviceAugmentation.fits(augmentation, contract, device)
    shown = DeviceAugmentation(augmentation, contract, device) if on_device else None

    for epoch in range(len(log.lines), settings.epochs):
        if log.stops:
            break
        if settings.gradual:
            freeze_front(network.backbone, 1 - settings.learns * epoch / max(1, settings.epochs - 1))
        share = settings.sizes[epoch * len(settings.sizes) // settings.epochs]
        now = replace(contract, input_size=scaled_size(network.backbone, contract.input_size, share))
        network.train()
        if not settings.scratch:
            # A pretrained batch norm keeps its statistics: those of a few dozen frames of one room are no better.
            _batch_norm_to_eval(network.backbone)
        model = workers.together(_Model(network, contract, settings.dropout, device), device)
        torch.manual_seed(_dice(settings.seed, epoch))  # of the order, and of the dropout
        batches = torch.randperm(len(train)).split(settings.batch)
        make = partial(_batch, augmentation, train.class_ids, weights, shown, now, settings.seed, epoch, workers)
        total, began, waited = torch.zeros((), device=device), time.monotonic(), runtime.waited
        for batch, made in zip(batches, runtime.ahead(enumerate(batches), make), strict=True):
            inputs = made[0].to(device) if shown is None else shown(made[0], now.input_size)
            targets, shares = (tensor.to(device) for tensor in made[1:])

            def backward(slices: list[slice], inputs=inputs, targets=targets, shares=shares, model=model):
                optimizer.zero_grad()
                loss = torch.zeros((), device=device)
                for own in slices:
                    losses = functional.cross_entropy(model(inputs[own]), targets[own], reduction="none")
                    part = (losses * shares[own]).sum()
                    scaler.scale(part * workers.count).backward()  # the gradients of all processes are averaged
                    loss += part.detach()
                return loss

            loss = runtime.memory.within(len(inputs), backward)
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            average.update_parameters(network)
            total += loss * len(batch)
            runtime.progress.frames(len(batch))
        loss = workers.sum(total).item() / len(train)
        runtime.count(len(train), began)
        speed = {
            "images_per_second": round(len(train) / (time.monotonic() - began), 1),
            "waited": round((runtime.waited - waited) / (time.monotonic() - began), 3),
        }
        logits = _logits(_Model(average.module, contract, 0.0, device).eval(), held_out, contract, settings, runtime)
        log.epoch(loss, logits, average.module, **speed)
        last = log.stops or epoch + 1 == settings.epochs
        runtime.journal.write(name, lambda: {part: own.state_dict() for part, own in parts.items()}, last)
    network.load_state_dict(log.best)
    freeze_front(network.backbone, 0)
    return log.lines


class _Model(nn.Module):
    """A network as training runs it: frames as `preprocess` gives them, uint8 [N, H, W, 3], to logits float32."""

    def __init__(self, network: Network, contract: Contract, dropout: float, device: torch.device):
        super().__init__()
        self.normalise = Normalise(contract).to(device)
        self.network = network
        self._dropout = dropout if isinstance(network.head, nn.Linear) else 0.0  # another head has its own
        self._dtype = half_precision(device)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        inputs = self.normalise(frames).contiguous(memory_format=torch.channels_last)
        with torch.autocast(frames.device.type, self._dtype, enabled=self._dtype is not None):
            features = self.network.backbone(inputs).float()
        return self.network.head(functional.dropout(features, self._dropout, self.training))


@torch.no_grad()
def _logits(model: _Model, examples: Examples, contract: Contract, settings: Settings, runtime: Runtime):
    """Return the logits of all examples, each process having done its share, float32 [N, labels]."""
    own, device = runtime.workers.share(examples.frames), runtime.device
    rows = [torch.empty(0, len(contract.labels), device=device)]
    for start in range(0, len(own), settings.batch):
        inputs = np.stack([preprocess(frame, contract) for frame in own[start : start + settings.batch]])
        inputs = torch.from_numpy(inputs).to(device)
        rows += runtime.memory.within(len(inputs), lambda parts, inputs=inputs: [model(inputs[part]) for part in parts])
    return runtime.workers.gather(torch.cat(rows), len(examples))


def _batch(
    augmentation: Augmentation,
    class_ids: torch.Tensor,
    weights: torch.Tensor,
    shown: DeviceAugmentation | None,
    contract: Contract,
    seed: int,
    epoch: int,
    workers: Workers,
    step: tuple[int, torch.Tensor],
) -> tuple[torch.Tensor | list[Plan], torch.Tensor, torch.Tensor]:
    """Return this process's share of a batch: frames uint8 [n, H, W, 3], targets [n, labels], and each one's weight.

    Instead of frames it is their plans where they are `shown` on the device. After the batch's own come pictures of no
    label, one for every eight, whose targets are all labels alike. The weights are those of the whole batch: summed
    over all processes they make its loss.
    """
    number, batch = step
    labels = len(contract.labels)
    nothing = len(batch) // 8 if augmentation.knows_nothing else 0
    own_weights = weights[class_ids[batch]]
    targets = torch.cat(
        [functional.one_hot(class_ids[batch], labels).float(), torch.full((nothing, labels), 1 / labels)]
    )
    shares = torch.cat([own_weights / own_weights.sum(), torch.full((nothing,), NOTHING / max(1, nothing))])
    rows = list(workers.share(range(len(targets))))
    if not rows:  # more processes than frames: this one goes along with a frame that counts nothing
        rows, shares = [0], torch.zeros(1)
    plans = []
    for row in rows:
        rng = np.random.default_rng((seed, 1 + epoch, number, row))  # whoever makes it makes it so
        plans.append(augmentation.plan(int(batch[row]), rng) if row < len(batch) else augmentation.plan_nothing(rng))
    if shown is not None:
        return plans, targets[rows], shares[rows]
    frames = np.stack([preprocess(augmentation.show(plan), contract) for plan in plans])
    return torch.from_numpy(frames), targets[rows], shares[rows]


def _dice(seed: int, epoch: int) -> int:
    """Return an epoch's own seed: what it does depends on nothing before it but the weights."""
    return int(np.random.default_rng((seed, epoch)).integers(2**63))


def _set_dropout(head: nn.Module, rate: float) -> None:
    for layer in head.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = rate


def class_weights(class_ids: torch.Tensor, labels: int) -> torch.Tensor:
    """Return a weight for each label, float32 [labels], by which all count the same in a loss."""
    counts = torch.bincount(class_ids, minlength=labels).clamp(min=1)
    return len(class_ids) / (labels * counts.float())


def balanced_loss(class_ids: torch.Tensor, labels: int) -> Callable[..., torch.Tensor]:
    """Return a cross entropy in which every label counts the same, however many of the `class_ids` are of it."""
    return partial(functional.cross_entropy, weight=class_weights(class_ids, labels))


class _Log:
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
        """Note an epoch."""
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
