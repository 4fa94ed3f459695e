"""What a frozen backbone makes of frames, computed once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from train.backbones import Network, Normalise, half_precision
from train.contract import Contract, preprocess

BATCH = 32


@torch.no_grad()
def extract_features(
    network: Network, frames: Iterable[np.ndarray], contract: Contract, device: torch.device
) -> torch.Tensor:
    """Return the backbone's features of frames (uint8 BGR), float32 [N, D] on `device`: each frame runs once."""
    model = nn.Sequential(Normalise(contract), network.backbone).to(device, memory_format=torch.channels_last).eval()
    dtype = half_precision(device)
    features = [torch.empty(0, network.head.in_features, device=device)]
    with tqdm(desc="features", unit="frame", leave=False, disable=None) as bar:
        frames = iter(frames)
        while batch := list(islice(frames, BATCH)):
            inputs = np.stack([preprocess(frame, contract) for frame in batch])
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                features.append(model(torch.from_numpy(inputs).to(device)).float())
            bar.update(len(batch))
    return torch.cat(features)
