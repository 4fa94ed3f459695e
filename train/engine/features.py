"""Compute the features of images with a frozen backbone, once, so that a head can be trained on them."""

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

BATCH_SIZE = 32


@torch.no_grad()
def extract_features(
    network: Network, images: Sequence[np.ndarray], contract: Contract, context: Context
) -> torch.Tensor:
    """Return the backbone's features of images, float32 [N, D] on the context's device.

    Each image runs through the backbone once. With several processes, each computes a part and all get the whole.

    Args:
        network: its backbone is moved to the device and set to evaluation mode.
        images: uint8 [H, W, 3], BGR, any size.
        contract: of the network's input.
        context: device, processes, progress and memory of the training.
    """
    device, started = context.device, time.monotonic()
    model = nn.Sequential(Normalize(contract), network.backbone).to(device).eval()
    model.to(memory_format=torch.channels_last)
    dtype = half_precision(device)
    shard = context.processes.shard(range(len(images)))
    rows = [torch.empty(0, network.feature_size, device=device)]

    def prepare(indices: Sequence[int]) -> np.ndarray:
        return np.stack([preprocess(images[index], contract) for index in indices])

    def run(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model(inputs).float()

    context.progress.begin("features", 1, len(shard))
    batches = [shard[start : start + BATCH_SIZE] for start in range(0, len(shard), BATCH_SIZE)]
    for prepared in context.prefetch(batches, prepare):
        inputs = torch.from_numpy(prepared).to(device)
        rows += context.micro_batcher.map_chunks(run, inputs)
        context.progress.advance(len(inputs))
    features = context.processes.gather(torch.cat(rows), len(images))
    context.count_images(len(images), started)
    return features
