"""Train the head alone, on features that the frozen backbone computed once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.loop import Batch, History, Loop, derive_seed
from teachcam.train.engine.loss import class_weights
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
    name: str = "head",
) -> list[dict]:
    """Train the head of a network. It ends with the weights of the epoch with the lowest validation loss.

    Args:
        network: Only its head is changed; a linear head starts from zero.
        contract: Has the labels.
        train: Features, float32 [N, D], and class ids, int64 [N].
        validation: The same of the validation images; N may be 0.
        config: Settings of the training.
        progress: Receives the epochs.
        name: Name of the training.

    Returns:
        The metrics of each epoch.
    """
    features, class_ids = train
    device, num_labels = features.device, len(contract.labels)
    # On standardized features one learning rate fits every backbone. The head is adapted to the original ones below.
    mean, std = features.mean(0), features.std(0, unbiased=False) + MIN_STD
    features, validation_features = (features - mean) / std, (validation[0] - mean) / std
    head = network.head.to(device)
    set_dropout(head, config.dropout)
    dropout = config.dropout if isinstance(head, nn.Linear) else 0.0  # an mlp head has its own dropout layer
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    history = History(class_ids, validation[1], num_labels, config.patience)
    context = Context(device, progress=progress or Progress())
    loop = Loop(head, [(head.parameters(), config.lr)], config, len(features), history, context)
    targets, weights = (
        functional.one_hot(class_ids, num_labels).float(),
        class_weights(class_ids, num_labels)[class_ids],
    )

    def batches() -> Iterator[Batch]:
        for rows in torch.randperm(len(features)).split(config.batch_size):
            rows = rows.to(device)
            inputs = functional.dropout(features[rows], dropout)
            yield Batch(inputs, targets[rows], weights[rows] / weights[rows].sum(), len(rows))

    def begin_epoch(epoch: int) -> tuple[nn.Module, Iterator[Batch]]:
        torch.manual_seed(derive_seed(config.seed, epoch))  # of the order and the dropout
        return head.train(), batches()

    epochs = loop.fit(name, begin_epoch, lambda: head.eval()(validation_features))
    _undo_standardization(head, mean, std)
    return epochs


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
