"""Train the head and layers of the backbone on augmented images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.augmentation import Augmentation
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.head import set_dropout
from teachcam.train.engine.loop import Batch, History, Loop, derive_seed
from teachcam.train.engine.loss import batch_targets, class_weights
from teachcam.train.model.backbones import Network, freeze_first_layers, half_precision, scaled_size
from teachcam.train.model.inference import Normalize

IMAGES_PER_OUTLIER = 8


class Trainer:
    """Trains the head and layers of the backbone on augmented images.

    It keeps a running average of the weights. The network ends with the average at the epoch that had the lowest
    validation loss, or at the last epoch if there are no validation images.
    """

    def __init__(
        self,
        network: Network,
        contract: Contract,
        train: Examples,
        validation: Examples,
        augmentation: Augmentation,
        config: TrainConfig,
        context: Context,
    ):
        """Prepare a training.

        Args:
            network: Is changed.
            contract: Labels, input size and normalization.
            train: Training images.
            validation: Validation images; may be empty.
            augmentation: Augmentation of the images in `train`, in the same order.
            config: Settings of the training.
            context: Surroundings of the training.
        """
        self._network, self._contract, self._train, self._validation = network, contract, train, validation
        self._augmentation, self._config, self._context = augmentation, config, context
        device = context.device
        network.to(device).to(memory_format=torch.channels_last)
        set_dropout(network.head, config.dropout)
        freeze_first_layers(network.backbone, 1 - config.trainable_fraction)
        trainable = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
        groups = [(trainable, config.backbone_lr), (network.head.parameters(), config.lr)]
        class_ids, validation_ids = train.class_ids.to(device), validation.class_ids.to(device)
        self._label_weights = class_weights(train.class_ids, len(contract.labels))
        history = History(class_ids, validation_ids, len(contract.labels), config.patience)
        dtype, processes = half_precision(device), context.processes
        self._loop = Loop(network, groups, config, len(train), history, context, dtype, processes)

    def fit(self, name: str = "fit") -> list[dict]:
        """Train all epochs that are left since the state was saved; return the metrics of each epoch.

        Args:
            name: Name of the training, for the progress bar and the saved state.
        """
        epochs = self._loop.fit(name, self._begin_epoch, self._evaluate, is_saved=True)
        freeze_first_layers(self._network.backbone, 0)
        return epochs

    def _begin_epoch(self, epoch: int) -> tuple[nn.Module, Iterator[Batch]]:
        """Freeze and unfreeze layers; return the model to train and the epoch's batches."""
        config, context, backbone = self._config, self._context, self._network.backbone
        if config.gradual:
            freeze_first_layers(backbone, 1 - config.trainable_fraction * epoch / max(1, config.epochs - 1))
        fraction = config.progressive_resize[epoch * len(config.progressive_resize) // config.epochs]
        input_size = scaled_size(backbone, self._contract.input_size, fraction)
        self._network.train()
        if not config.scratch:
            # Pretrained batch norm keeps its statistics: those of a few dozen images of one room are no better.
            _batch_norm_to_eval(backbone)
        model = TrainingModel(self._network, self._contract, config.dropout, context.device)
        return (
            context.processes.wrap_ddp(model, context.device),
            self._batches(epoch, replace(self._contract, input_size=input_size)),
        )

    def _batches(self, epoch: int, contract: Contract) -> Iterator[Batch]:
        """Yield this process's parts of the batches of an epoch, in random order."""
        config, context = self._config, self._context
        shared_generator = torch.Generator().manual_seed(derive_seed(config.seed, epoch))  # same order in all processes
        batches = torch.randperm(len(self._train), generator=shared_generator).split(config.batch_size)
        if config.scratch and len(batches) > 1 and len(batches[-1]) == 1:  # batch norm can't learn from one image
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        torch.manual_seed(derive_seed(config.seed, epoch, context.processes.rank))  # of the dropout
        started = time.monotonic()
        for batch in context.prefetch(enumerate(batches), partial(self._load, epoch, contract)):
            yield batch.to(context.device)
        context.count_images(len(self._train), started)

    def _load(self, epoch: int, contract: Contract, numbered_batch: tuple[int, torch.Tensor]) -> Batch:
        """Make this process's part of a batch. It depends on the arguments only, so any thread can make it.

        Args:
            epoch: Epoch, counted from 0.
            contract: Contract with the input size of this epoch.
            numbered_batch: Number of the batch in the epoch, and the indices of its images, int64 [n].
        """
        number, indices = numbered_batch
        augmentation, class_ids = self._augmentation, self._train.class_ids
        num_outliers = len(indices) // IMAGES_PER_OUTLIER if augmentation.has_outliers else 0
        targets, weights = batch_targets(class_ids[indices], self._label_weights, num_outliers)
        rows = list(self._context.processes.shard(range(len(targets))))
        if not rows:  # more processes than images: this one computes an image of weight 0, to stay in step
            rows, weights = [0], torch.zeros(1)
        images = []
        for row in rows:
            rng = np.random.default_rng((self._config.seed, 1 + epoch, number, row))
            is_outlier = row >= len(indices)
            params = augmentation.sample_outlier(rng) if is_outlier else augmentation.sample(int(indices[row]), rng)
            images.append(preprocess(augmentation.apply(params), contract))
        return Batch(torch.from_numpy(np.stack(images)), targets[rows], weights[rows], len(indices))

    def _evaluate(self) -> torch.Tensor:
        """Return the averaged weights' logits of the validation images, float32 [N, num_classes] on the device."""
        context, batch_size, device = self._context, self._config.batch_size, self._context.device
        model = TrainingModel(cast(Network, self._loop.trained), self._contract, 0.0, device).eval()
        images = context.processes.shard(self._validation.images)
        rows = [torch.empty(0, len(self._contract.labels), device=device)]
        for start in range(0, len(images), batch_size):
            inputs = np.stack([preprocess(image, self._contract) for image in images[start : start + batch_size]])
            rows += context.micro_batcher.map_chunks(model, torch.from_numpy(inputs).to(device))
        return context.processes.gather(torch.cat(rows), len(self._validation))


class TrainingModel(nn.Module):
    """A network as training runs it: images as `preprocess` returns them, uint8 [N, H, W, 3], to float32 logits."""

    def __init__(self, network: Network, contract: Contract, dropout: float, device: torch.device):
        super().__init__()
        self.normalize = Normalize(contract).to(device)
        self.network = network
        self._dropout = dropout if isinstance(network.head, nn.Linear) else 0.0  # an mlp head has its own dropout layer
        self._dtype = half_precision(device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [N, num_classes]."""
        inputs = self.normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, self._dtype, enabled=self._dtype is not None):
            features = self.network.backbone(inputs).float()
        return self.network.head(functional.dropout(features, self._dropout, self.training))


def _batch_norm_to_eval(backbone: nn.Module) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
