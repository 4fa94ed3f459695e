"""The module that is evaluated and exported: InferenceModel turns images into probabilities and features.

    uint8 images -> Normalize -> Network (backbone, head) -> divide by temperature -> softmax -> probabilities

`preprocess` in teachcam/preprocessing.py makes the uint8 images. Everything after it is in the module, and so in the
exported graph. `predict` runs the module on a list of images, for evaluation and for checking an export.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.model.backbones import SQRT_UNKNOWN, Network

BATCH_SIZE = 32


class Normalize(nn.Module):
    """Normalizes images by the contract's mean and standard deviation."""

    scale: torch.Tensor  # float32 [1, 3, 1, 1]
    shift: torch.Tensor  # float32 [1, 3, 1, 1]

    def __init__(self, contract: Contract):
        super().__init__()
        mean, std = torch.tensor(contract.mean), torch.tensor(contract.std)
        # One multiplication and one subtraction: (x / 255 - mean) / std = x * scale - shift
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N, 3, H, W] for images as `preprocess` returns them, uint8 [N, H, W, 3]."""
        # The cast comes first because TensorRT accepts uint8 input only if a cast follows it directly.
        return images.float().permute(0, 3, 1, 2) * self.scale - self.shift


class InferenceModel(nn.Module):
    """A trained network between its normalization and its calibrated softmax. It is in evaluation mode."""

    def __init__(self, network: Network, contract: Contract):
        super().__init__()
        self.normalize = Normalize(contract)
        self.network = network
        self.temperature = contract.temperature
        self.num_classes = len(contract.labels) if network.head_kind == SQRT_UNKNOWN else None
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and features.

        Args:
            images: Images in the contract's size and color order, uint8 [N, H, W, 3], as `preprocess` returns them.

        Returns:
            Probabilities, float32 [N, num_classes], and the features they were computed from, float32 [N, D].
        """
        features = self.network.backbone(self.normalize(images))
        probabilities = torch.softmax(self.network.head(features) / self.temperature, dim=1)
        if self.num_classes is not None:  # what is left to 1 is the probability of no label
            probabilities = probabilities[:, : self.num_classes]
        return probabilities, features


@torch.inference_mode()
def predict(model: InferenceModel, images: list[np.ndarray], contract: Contract, device: str = "cpu") -> np.ndarray:
    """Return the probabilities of images, float32 [N, num_classes].

    Args:
        model: Model, which is moved to `device`.
        images: Images, uint8 [H, W, 3], BGR, any size.
        contract: Contract of the model.
        device: Device to run on, such as cpu or cuda.
    """
    model = model.to(device)
    rows = [np.empty((0, len(contract.labels)), np.float32)]
    for start in range(0, len(images), BATCH_SIZE):
        model_input = np.stack([preprocess(image, contract) for image in images[start : start + BATCH_SIZE]])
        probabilities, _ = model(torch.from_numpy(model_input).to(device))
        rows.append(probabilities.cpu().numpy())
    return np.concatenate(rows)
