"""What a frozen backbone makes of frames, computed once."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.engine.context import Context
from teachcam.train.model.backbones import Network, half_precision
from teachcam.train.model.inference import Normalize

BATCH = 32


@torch.no_grad()
def extract_features(
    network: Network, frames: Sequence[np.ndarray], contract: Contract, context: Context
) -> torch.Tensor:
    """Return the backbone's features of frames (uint8 BGR), float32 [N, D] on the device: each frame runs once."""
    device, began = context.device, time.monotonic()
    model = nn.Sequential(Normalize(contract), network.backbone).to(device, memory_format=torch.channels_last).eval()
    dtype = half_precision(device)
    own = context.workers.shard(range(len(frames)))
    rows = [torch.empty(0, network.feature_size, device=device)]

    def run(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model(inputs).float()

    context.progress.begin("features", 1, len(own))
    batches = [own[start : start + BATCH] for start in range(0, len(own), BATCH)]
    for inputs in context.ahead(batches, lambda batch: np.stack([preprocess(frames[i], contract) for i in batch])):
        inputs = torch.from_numpy(inputs).to(device)
        rows += context.memory.within(len(inputs), lambda parts, inputs=inputs: [run(inputs[part]) for part in parts])
        context.progress.frames(len(inputs))
    features = context.workers.gather(torch.cat(rows), len(frames))
    context.count(len(frames), began)
    return features
