"""The training loop: train the head and layers of the backbone on augmented images (Trainer)."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.augment.cpu import Augmentation
from teachcam.train.augment.gpu import GpuAugmentation
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.context import Context
from teachcam.train.engine.early_stopping import EarlyStopping
from teachcam.train.engine.head import set_dropout
from teachcam.train.engine.loader import BatchLoader, derive_seed
from teachcam.train.engine.loss import balanced_cross_entropy, weighted_cross_entropy
from teachcam.train.engine.optimizer import make_optimizer, take_step
from teachcam.train.model.backbones import Network, freeze_first_layers, half_precision, scaled_size
from teachcam.train.model.inference import Normalize

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]  # as AveragedModel has them
AVERAGE_DECAY = 0.98  # of the averaged weights: at each step they keep this share, so they span about 50 steps


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
        name: str = "fit",
    ):
        """Prepare a training, or continue it from its saved state.

        Args:
            network: is changed.
            contract: labels, input size and normalization.
            train: the training images.
            validation: the validation images; may be empty.
            augmentation: of the images in `train`, in the same order.
            config: how to train.
            context: what the training runs with; `context.state` holds the state that was saved under `name`, if any.
            name: of the training, for the progress bar and the saved state.
        """
        self.network, self.contract, self.train, self.validation = network, contract, train, validation
        self.augmentation, self.config, self.context, self.name = augmentation, config, context, name
        self._setup()
        if (state := context.state.read(name)) is not None:
            self.load_state_dict(state)

    def _setup(self) -> None:
        """Make optimizer, averaged weights, gradient scaler and GPU augmentation."""
        config, device = self.config, self.context.device
        self.network.to(device).to(memory_format=torch.channels_last)
        set_dropout(self.network.head, config.dropout)
        freeze_first_layers(self.network.backbone, 1 - config.trainable_fraction)
        trainable = [parameter for parameter in self.network.backbone.parameters() if parameter.requires_grad]
        groups = [(trainable, config.backbone_lr), (self.network.head.parameters(), config.lr)]
        self.optimizer, self.schedule = make_optimizer(groups, config, len(self.train))
        self.average = AveragedModel(self.network, multi_avg_fn=update_average)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half_precision(device) == torch.float16)
        loss_function = balanced_cross_entropy(self.train.class_ids.to(device), len(self.contract.labels))
        validation_ids = self.validation.class_ids.to(device)
        self.early_stopping = EarlyStopping(loss_function, validation_ids, config.patience, self.context.progress.epoch)
        on_gpu = GpuAugmentation.fits(self.augmentation, self.contract, device)
        self._gpu_augmentation = GpuAugmentation(self.augmentation, self.contract, device) if on_gpu else None

    def fit(self) -> list[dict]:
        """Train all epochs that are left; return the metrics of each epoch."""
        config, early_stopping = self.config, self.early_stopping
        epochs_done = len(early_stopping.history)
        self.context.progress.begin(self.name, config.num_epochs, len(self.train), epochs_done)
        for epoch in range(epochs_done, config.num_epochs):
            if early_stopping.should_stop:
                break
            loss, speed = self.train_epoch(epoch)
            early_stopping.add_epoch(loss, self.evaluate(), self.average.module, **speed)
            last = early_stopping.should_stop or epoch + 1 == config.num_epochs
            self.context.state.write(self.name, self.state_dict, last)
        self.network.load_state_dict(early_stopping.best_weights)
        freeze_first_layers(self.network.backbone, 0)
        return early_stopping.history

    def train_epoch(self, epoch: int) -> tuple[float, dict[str, float]]:
        """Train one epoch, counted from 0.

        Returns:
            The mean loss, and what is measured of the speed: `images_per_second` and `data_wait_fraction`.
        """
        config, context, processes = self.config, self.context, self.context.processes
        contract = self._prepare_epoch(epoch)
        model = processes.wrap_ddp(
            TrainingModel(self.network, self.contract, config.dropout, context.device), context.device
        )
        shared_generator = torch.Generator().manual_seed(derive_seed(config.seed, epoch))  # same order in all processes
        batches = torch.randperm(len(self.train), generator=shared_generator).split(config.batch_size)
        if config.scratch and len(batches) > 1 and len(batches[-1]) == 1:  # batch norm can't learn from one image
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        torch.manual_seed(derive_seed(config.seed, epoch, processes.rank))  # of the dropout
        loader = BatchLoader(
            self.augmentation, self.train.class_ids, contract, config.seed, epoch, processes, self._gpu_augmentation
        )
        total, started = torch.zeros((), device=context.device), time.monotonic()
        waited = context.data_wait_seconds
        for indices, batch in zip(batches, context.prefetch(enumerate(batches), loader.load), strict=True):
            tensors = loader.to_device(batch, context.device)
            total += self._step(model, tensors) * len(indices)
            context.progress.advance(len(indices))
        loss = processes.sum(total).item() / len(self.train)
        context.count_images(len(self.train), started)
        seconds = time.monotonic() - started
        return loss, {
            "images_per_second": round(len(self.train) / seconds, 1),
            "data_wait_fraction": round((context.data_wait_seconds - waited) / seconds, 3),
        }

    def _prepare_epoch(self, epoch: int) -> Contract:
        """Freeze and unfreeze layers for an epoch; return the contract with the epoch's input size."""
        config, backbone = self.config, self.network.backbone
        if config.gradual:
            freeze_first_layers(backbone, 1 - config.trainable_fraction * epoch / max(1, config.epochs - 1))
        fraction = config.progressive_resize[epoch * len(config.progressive_resize) // config.epochs]
        input_size = scaled_size(backbone, self.contract.input_size, fraction)
        self.network.train()
        if not config.scratch:
            # Pretrained batch norm keeps its statistics: those of a few dozen images of one room are no better.
            _batch_norm_to_eval(backbone)
        return replace(self.contract, input_size=input_size)

    def _step(self, model: nn.Module, tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Train on one batch (images, targets, weights); return this process's part of its loss."""
        loss = self.context.micro_batcher.run_in_chunks(len(tensors[0]), partial(self._backward, model, tensors))
        take_step(self.network, self.optimizer, self.schedule, self.scaler)
        self.average.update_parameters(self.network)
        return loss

    def _backward(
        self, model: nn.Module, tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chunks: list[slice]
    ) -> torch.Tensor:
        """Compute a batch's gradients, chunk by chunk; return this process's part of its loss."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=tensors[0].device)
        for chunk in chunks:
            images, targets, weights = (tensor[chunk] for tensor in tensors)
            loss = weighted_cross_entropy(model(images), targets, weights)
            # DistributedDataParallel averages over the processes, but their parts of the loss have to be summed.
            self.scaler.scale(loss * self.context.processes.count).backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def evaluate(self) -> torch.Tensor:
        """Return the averaged weights' logits of the validation images, float32 [N, num_classes] on the device."""
        context, batch_size, device = self.context, self.config.batch_size, self.context.device
        model = TrainingModel(cast(Network, self.average.module), self.contract, 0.0, device).eval()
        images = context.processes.shard(self.validation.images)
        rows = [torch.empty(0, len(self.contract.labels), device=device)]
        for start in range(0, len(images), batch_size):
            inputs = np.stack([preprocess(image, self.contract) for image in images[start : start + batch_size]])
            rows += context.micro_batcher.map_chunks(model, torch.from_numpy(inputs).to(device))
        return context.processes.gather(torch.cat(rows), len(self.validation))

    def state_dict(self) -> dict:
        """Return all that the next epoch depends on, for `load_state_dict`."""
        return {name: part.state_dict() for name, part in self._stateful_parts().items()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        parts = self._stateful_parts()
        for name, own in state.items():
            parts[name].load_state_dict(own)

    def _stateful_parts(self) -> dict:
        return {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
            "early_stopping": self.early_stopping,
        }


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


def update_average(averages: Tensors, weights: Tensors, steps: torch.Tensor | int) -> None:
    """Average exponentially, over fewer steps at first, so that a short training moves away from its start."""
    decay = min(1 - 9 / (10 + int(steps)), AVERAGE_DECAY)
    get_ema_multi_avg_fn(decay)(averages, weights, steps)


def _batch_norm_to_eval(backbone: nn.Module) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
