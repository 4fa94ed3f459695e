"""How a network learns from few frames: `head` and `full`.

Each strategy takes a `Lesson` and changes its network; after every epoch it reports to `lesson.on_epoch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from train.augment import augment
from train.backbones import Network, Normalise
from train.contract import Contract, preprocess
from train.features import extract_features

BATCH = 32
DROPOUT = 0.2  # of the features, before the head
SMOOTHING = 0.1  # of the targets: how much of the probability goes to the other labels
AVERAGE = 0.98  # how much of the averaged weights stays at each step: the average reaches back about 50 steps


@dataclass
class Lesson:
    """What a strategy needs: the network, frames (uint8 BGR, any size) with their class ids, and the settings."""

    network: Network
    contract: Contract
    frames: list[np.ndarray]
    targets: torch.Tensor  # int64 [N]
    held_out_frames: list[np.ndarray]
    held_out_targets: torch.Tensor
    epochs: int
    device: torch.device
    seed: int = 0
    on_epoch: Callable[[dict], None] = lambda _: None
    history: list[dict] = field(default_factory=list)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Cross entropy in which every label counts the same, however many frames it has."""
        counts = torch.bincount(self.targets, minlength=len(self.contract.labels)).clamp(min=1)
        weights = len(self.targets) / (len(counts) * counts.to(logits.device, torch.float32))
        return functional.cross_entropy(logits, targets.to(logits.device), weights, label_smoothing=smoothing)

    def report(self, epoch: int, loss: float, held_out_logits: torch.Tensor) -> None:
        """Note an epoch: its training loss, and loss and accuracy on the held-out frames."""
        targets = self.held_out_targets.to(held_out_logits.device)
        line = {"epoch": epoch, "loss": loss, "held_out_loss": None, "held_out_accuracy": None}
        if len(targets):
            line["held_out_loss"] = self.loss(held_out_logits.float(), targets).item()
            line["held_out_accuracy"] = (held_out_logits.argmax(1) == targets).float().mean().item()
        self.history.append(line)
        self.on_epoch(line)


def train_head(lesson: Lesson) -> None:
    """Train the head alone on features that are computed once: seconds for the backbone, well under one to learn."""
    network, device = lesson.network, lesson.device
    seen = extract_features(network, lesson.frames + lesson.held_out_frames, lesson.contract, device)
    features, held_out = seen[: len(lesson.frames)], seen[len(lesson.frames) :]
    targets = lesson.targets.to(device)
    # Learning on standardised features, then folding that into the head, makes one rate fit every backbone.
    mean, std = features.mean(0), features.std(0, unbiased=False) + 1e-3
    features, held_out = (features - mean) / std, (held_out - mean) / std

    head = network.head.to(device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1.0)
    shuffle = torch.Generator().manual_seed(lesson.seed)
    for epoch in range(1, lesson.epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(features), generator=shuffle).split(2 * BATCH):
            loss = lesson.loss(head(features[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            lesson.report(epoch, total / len(features), head(held_out))
    with torch.no_grad():
        head.weight /= std
        head.bias -= head.weight @ mean


def train_full(lesson: Lesson) -> None:
    """Train every layer on augmented frames; what is kept is the average of the weights along the way.

    One-cycle AdamW, a smaller rate for the backbone than for the head, softened targets.
    """
    network, device = lesson.network, lesson.device
    normalise = Normalise(lesson.contract).to(device)
    network.to(device, memory_format=torch.channels_last)
    parts = [list(network.backbone.parameters()), list(network.head.parameters())]
    optimizer = torch.optim.AdamW([{"params": part} for part in parts], weight_decay=0.02)
    batches = -(-len(lesson.frames) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [3e-4, 3e-3], total_steps=lesson.epochs * batches, pct_start=0.2
    )
    average = AveragedModel(network, avg_fn=_running_average)
    dtype = half_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    rng = np.random.default_rng(lesson.seed)
    shuffle = torch.Generator().manual_seed(lesson.seed)

    def inputs_of(frames: list[np.ndarray]) -> torch.Tensor:
        frames = torch.from_numpy(np.stack([preprocess(frame, lesson.contract) for frame in frames])).to(device)
        return normalise(frames).contiguous(memory_format=torch.channels_last)

    for epoch in range(1, lesson.epochs + 1):
        network.train()
        total = 0.0
        for batch in torch.randperm(len(lesson.frames), generator=shuffle).split(BATCH):
            inputs = inputs_of([augment(lesson.frames[index], rng) for index in batch])
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                features = network.backbone(inputs)
            logits = network.head(functional.dropout(features.float(), DROPOUT))
            loss = lesson.loss(logits, lesson.targets[batch], SMOOTHING)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            average.update_parameters(network)
            total += loss.item() * len(batch)
        average.eval()
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            chunks = range(0, len(lesson.held_out_frames), BATCH)
            logits = [average(inputs_of(lesson.held_out_frames[start : start + BATCH])) for start in chunks]
        empty = torch.empty(0, len(lesson.contract.labels))
        lesson.report(epoch, total / len(lesson.frames), torch.cat(logits) if logits else empty)
    network.load_state_dict(average.module.state_dict())


def _running_average(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Exponential, with a shorter memory at first: a short training must not end near where it began."""
    return average.lerp(now, max(1 - AVERAGE, 9 / (10 + steps.item())))


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that trains faster on this device, or None: bfloat16 where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("avx512_bf16") else None


STRATEGIES = {"head": train_head, "full": train_full}
EPOCHS = {"head": 30, "full": 8}  # unless --epochs says otherwise
