"""What a frozen backbone makes of frames, computed once."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from train.backbones import Network, Normalise
from train.contract import Contract, preprocess

BATCH = 32


@torch.no_grad()
def extract_features(
    network: Network, frames: list[np.ndarray], contract: Contract, device: torch.device
) -> torch.Tensor:
    """Return the backbone's features of frames (uint8 BGR), float32 [N, D] on `device`: each frame runs once."""
    model = nn.Sequential(Normalise(contract), network.backbone).to(device, memory_format=torch.channels_last).eval()
    features = [torch.empty(0, network.head.in_features, device=device)]
    for start in tqdm(range(0, len(frames), BATCH), desc="features", unit="batch", leave=False, disable=None):
        inputs = np.stack([preprocess(frame, contract) for frame in frames[start : start + BATCH]])
        features.append(model(torch.from_numpy(inputs).to(device)))
    return torch.cat(features)
