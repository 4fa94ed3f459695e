"""The training loops: the head alone on features that are computed once, or layers of the backbone with it.

Both leave the network with the weights of the epoch that did best on the held-out examples.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.gpu import DeviceAugmentation
from teachcam.train.config import TrainConfig
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.early_stopping import EarlyStopping
from teachcam.train.engine.head import set_dropout
from teachcam.train.engine.loader import Batches, balanced_loss, derive_seed
from teachcam.train.engine.optimizer import make_optimizer
from teachcam.train.model.backbones import Network, freeze_first_layers, half_precision, scaled_size
from teachcam.train.model.inference import Normalize

AVERAGE = 0.98  # how much of the averaged weights stays at each step: the average reaches back about 50 steps


def fit(
    network: Network,
    contract: Contract,
    train: Examples,
    validation: Examples,
    augmentation: Augmentation,
    settings: TrainConfig,
    context: Context,
    name: str = "fit",
) -> list[dict]:
    """Train the head and layers of the backbone on augmented frames; return a line for each epoch.

    `augmentation` is of the same frames as `train`. What is kept is the average of the weights along the way. Under
    its `name` the runtime's journal has where an earlier try got to, if there was one.
    """
    device, workers = context.device, context.workers
    network.to(device, memory_format=torch.channels_last)
    set_dropout(network.head, settings.dropout)
    freeze_first_layers(network.backbone, 1 - settings.trainable_fraction)
    learning = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    groups = [(learning, settings.backbone_lr), (network.head.parameters(), settings.lr)]
    optimizer, schedule = make_optimizer(groups, settings, len(train))
    average = AveragedModel(network, avg_fn=_running_average)
    dtype = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    loss_of = balanced_loss(train.class_ids.to(device), len(contract.labels))
    log = EarlyStopping(loss_of, validation.class_ids.to(device), settings.patience, context.progress.epoch)
    parts = {
        "network": network, "average": average, "optimizer": optimizer, "schedule": schedule, "scaler": scaler,
        "log": log,
    }  # fmt: skip
    if (state := context.journal.read(name)) is not None:
        for part, kept in state.items():
            parts[part].load_state_dict(kept)
    context.progress.begin(name, settings.stop or settings.epochs, len(train), len(log.lines))
    on_device = DeviceAugmentation.fits(augmentation, contract, device)
    shown = DeviceAugmentation(augmentation, contract, device) if on_device else None

    epochs = settings.stop or settings.epochs
    for epoch in range(len(log.lines), epochs):
        if log.stops:
            break
        if settings.gradual:
            freeze_first_layers(network.backbone, 1 - settings.trainable_fraction * epoch / max(1, settings.epochs - 1))
        share = settings.sizes[epoch * len(settings.sizes) // settings.epochs]
        now = replace(contract, input_size=scaled_size(network.backbone, contract.input_size, share))
        network.train()
        if not settings.scratch:
            # A pretrained batch norm keeps its statistics: those of a few dozen frames of one room are no better.
            _batch_norm_to_eval(network.backbone)
        model = workers.wrap_ddp(_Model(network, contract, settings.dropout, device), device)
        same = torch.Generator().manual_seed(derive_seed(settings.seed, epoch))  # in all processes
        order = torch.randperm(len(train), generator=same).split(settings.batch)
        torch.manual_seed(derive_seed(settings.seed, epoch, workers.rank))  # of the dropout
        batches = Batches(augmentation, train.class_ids, now, settings.seed, epoch, workers, shown)
        total, began, waited = torch.zeros((), device=device), time.monotonic(), context.waited
        for batch, made in zip(order, context.ahead(enumerate(order), batches.make), strict=True):
            tensors = batches.put(made[0], device), made[1].to(device), made[2].to(device)
            backward = partial(_backward, model, tensors, optimizer, scaler, workers.count)
            loss = context.memory.within(len(tensors[0]), backward)
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            average.update_parameters(network)
            total += loss * len(batch)
            context.progress.frames(len(batch))
        loss = workers.sum(total).item() / len(train)
        context.count(len(train), began)
        speed = {
            "images_per_second": round(len(train) / (time.monotonic() - began), 1),
            "data_wait_fraction": round((context.waited - waited) / (time.monotonic() - began), 3),
        }
        logits = _logits(_Model(average.module, contract, 0.0, device).eval(), validation, contract, settings, context)
        log.epoch(loss, logits, average.module, **speed)
        last = log.stops or epoch + 1 == epochs
        context.journal.write(name, lambda: {part: own.state_dict() for part, own in parts.items()}, last)
    network.load_state_dict(log.best)
    freeze_first_layers(network.backbone, 0)
    return log.lines


class _Model(nn.Module):
    """A network as training runs it: frames as `preprocess` gives them, uint8 [N, H, W, 3], to logits float32."""

    def __init__(self, network: Network, contract: Contract, dropout: float, device: torch.device):
        super().__init__()
        self.normalize = Normalize(contract).to(device)
        self.network = network
        self._dropout = dropout if isinstance(network.head, nn.Linear) else 0.0  # another head has its own
        self._dtype = half_precision(device)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        inputs = self.normalize(frames).contiguous(memory_format=torch.channels_last)
        with torch.autocast(frames.device.type, self._dtype, enabled=self._dtype is not None):
            features = self.network.backbone(inputs).float()
        return self.network.head(functional.dropout(features, self._dropout, self.training))


def _backward(
    model: nn.Module,
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    processes: int,
    parts: list[slice],
) -> torch.Tensor:
    """Leave a batch's gradients in the parameters, part by part; return this process's part of the loss."""
    optimizer.zero_grad()
    total = torch.zeros((), device=tensors[0].device)
    for part in parts:
        inputs, targets, weights = (tensor[part] for tensor in tensors)
        loss = (functional.cross_entropy(model(inputs), targets, reduction="none") * weights).sum()
        scaler.scale(loss * processes).backward()  # the gradients of all processes are averaged
        total += loss.detach()
    return total


@torch.no_grad()
def _logits(model: _Model, examples: Examples, contract: Contract, settings: TrainConfig, context: Context):
    """Return the logits of all examples, each process having done its share, float32 [N, labels]."""
    own, device = context.workers.shard(examples.frames), context.device
    rows = [torch.empty(0, len(contract.labels), device=device)]
    for start in range(0, len(own), settings.batch):
        inputs = np.stack([preprocess(frame, contract) for frame in own[start : start + settings.batch]])
        inputs = torch.from_numpy(inputs).to(device)
        rows += context.memory.within(len(inputs), lambda parts, inputs=inputs: [model(inputs[part]) for part in parts])
    return context.workers.gather(torch.cat(rows), len(examples))


def _running_average(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Exponential, with a shorter memory at first: a short training must not end near where it began."""
    return average.lerp(now, (9 / (10 + steps)).clamp(min=1 - AVERAGE).to(average.dtype))


def _batch_norm_to_eval(backbone: nn.Module) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
