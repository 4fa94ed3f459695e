"""Train the head alone, on features that the frozen backbone computed once."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.early_stopping import EarlyStopping
from teachcam.train.engine.loader import derive_seed
from teachcam.train.engine.loss import balanced_cross_entropy
from teachcam.train.engine.optimizer import make_optimizer
from teachcam.train.engine.progress import Progress
from teachcam.train.model.backbones import Network

MIN_STD = 1e-3  # added to each feature's standard deviation, which may be 0


def fit_head(
    network: Network,
    contract: Contract,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    config: TrainConfig,
    progress: Progress | None = None,
) -> list[dict]:
    """Train the head of a network. It ends with the weights of the epoch with the lowest validation loss.

    Args:
        network: only its head is changed; a linear head starts from zero.
        contract: has the labels.
        train: features, float32 [N, D], and class ids, int64 [N].
        validation: the same of the validation images; N may be 0.
        config: how to train.
        progress: receives the epochs.

    Returns:
        The metrics of each epoch.
    """
    features, class_ids = train
    device = features.device
    # On standardized features one learning rate fits every backbone. The head is adapted to the original ones below.
    mean, std = features.mean(0), features.std(0, unbiased=False) + MIN_STD
    features, validation_features = (features - mean) / std, (validation[0] - mean) / std
    head = network.head.to(device)
    set_dropout(head, config.dropout)
    dropout = config.dropout if isinstance(head, nn.Linear) else 0.0  # an mlp head has its own dropout layer
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    loss_function = balanced_cross_entropy(class_ids, len(contract.labels))
    progress = progress or Progress()
    early_stopping = EarlyStopping(loss_function, validation[1], config.patience, progress.epoch)
    optimizer, schedule = make_optimizer([(head.parameters(), config.lr)], config, len(features))
    for epoch in range(config.num_epochs):
        head.train()
        torch.manual_seed(derive_seed(config.seed, epoch))
        total = 0.0
        for batch in torch.randperm(len(features)).split(config.batch_size):
            batch = batch.to(device)
            loss = loss_function(head(functional.dropout(features[batch], dropout)), class_ids[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
            progress.advance(len(batch))
        with torch.no_grad():
            early_stopping.add_epoch(total / len(features), head.eval()(validation_features), head)
        if early_stopping.should_stop:
            break
    head.load_state_dict(early_stopping.best_weights)
    _undo_standardization(head, mean, std)
    return early_stopping.history


def set_dropout(head: nn.Module, rate: float) -> None:
    """Set the rate of all dropout layers in a head."""
    for layer in head.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = rate


@torch.no_grad()
def _undo_standardization(head: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Change the first layer so that the head takes features as the backbone returns them."""
    first = next(layer for layer in head.modules() if isinstance(layer, nn.Linear))
    first.weight /= std
    first.bias.sub_(first.weight @ mean)
