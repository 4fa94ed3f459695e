"""Train the head alone, on features that the frozen backbone computed once."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.train.config import TrainConfig
from teachcam.train.engine.early_stopping import EarlyStopping
from teachcam.train.engine.loader import balanced_loss, derive_seed
from teachcam.train.engine.optimizer import make_optimizer
from teachcam.train.engine.progress import Progress
from teachcam.train.model.backbones import Network


def fit_head(
    network: Network,
    contract: Contract,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    settings: TrainConfig,
    progress: Progress | None = None,
) -> list[dict]:
    """Train a new head on features float32 [N, D] and class ids int64 [N]; return a line for each epoch."""
    features, class_ids = train
    device = features.device
    # Learning on standardized features, then folding that into the head, makes one rate fit every backbone.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-3
    features, held_features = (features - mean) / std, (validation[0] - mean) / std
    head = network.head.to(device)
    set_dropout(head, settings.dropout)
    dropout = settings.dropout if isinstance(head, nn.Linear) else 0.0  # another head has its own
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    loss_of = balanced_loss(class_ids, len(contract.labels))
    progress = progress or Progress()
    log = EarlyStopping(loss_of, validation[1], settings.patience, progress.epoch)
    optimizer, schedule = make_optimizer([(head.parameters(), settings.lr)], settings, len(features))
    for epoch in range(settings.stop or settings.epochs):
        head.train()
        torch.manual_seed(derive_seed(settings.seed, epoch))
        total = 0.0
        for batch in torch.randperm(len(features)).split(settings.batch):
            batch = batch.to(device)
            loss = loss_of(head(functional.dropout(features[batch], dropout)), class_ids[batch])
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


def set_dropout(head: nn.Module, rate: float) -> None:
    for layer in head.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = rate
