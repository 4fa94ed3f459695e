"""What is exported: images in, probabilities and features out; and evaluation on the same path."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.model.backbones import Network


@torch.inference_mode()
def predict(model: InferenceModel, frames: list[np.ndarray], contract: Contract, device: str = "cpu") -> np.ndarray:
    """Return the probabilities of frames (uint8 BGR, any size), float32 [N, labels]."""
    model = model.to(device)
    rows = [np.empty((0, len(contract.labels)), np.float32)]
    for start in range(0, len(frames), 32):
        inputs = np.stack([preprocess(frame, contract) for frame in frames[start : start + 32]])
        probabilities, _ = model(torch.from_numpy(inputs).to(device))
        rows.append(probabilities.cpu().numpy())
    return np.concatenate(rows)


class Normalize(nn.Module):
    """The contract's normalization: frames as `preprocess` gives them, [N, H, W, 3], to float [N, 3, H, W]."""

    def __init__(self, contract: Contract):
        super().__init__()
        scale = 1 / (255 * torch.tensor(contract.std))
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "shift",
            (torch.tensor(contract.mean) / torch.tensor(contract.std)).view(1, 3, 1, 1),
            persistent=False,
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the network's input."""
        return frames.float().permute(0, 3, 1, 2) * self.scale - self.shift  # TensorRT casts before anything else


class InferenceModel(nn.Module):
    """What is evaluated and exported: frames [N, H, W, 3] in, probabilities [N, labels] and features [N, D] out."""

    def __init__(self, network: Network, contract: Contract):
        super().__init__()
        self.normalize = Normalize(contract)
        self.network = network
        self.temperature = contract.temperature
        self.eval()

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities, and the features that they were made from."""
        features = self.network.backbone(self.normalize(frames))
        return torch.softmax(self.network.head(features) / self.temperature, dim=1), features
