"""Show where a network looks: Grad-CAM (Selvaraju 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.model.backbones import Network
from teachcam.train.model.inference import Normalize


def activation_maps(
    network: Network, contract: Contract, images: list[np.ndarray], class_ids: list[int]
) -> list[np.ndarray] | None:
    """Return a heat map for each image, which shows the places that speak for a class. Runs on the CPU.

    Args:
        network: Network, which is moved to the CPU and set to evaluation mode.
        contract: Contract of the network's input.
        images: Images, uint8 [H, W, 3], BGR, any size.
        class_ids: Class to explain, for each image.

    Returns:
        float32 [h, w], 0 to 1, for each image; it covers the whole image. None if the backbone keeps no spatial feature
        map up to its end, as in a vision transformer.
    """
    if not images:
        return []
    network = network.cpu().eval()
    last_map: list[torch.Tensor] = []  # the latest output with a height and a width

    def keep(_: nn.Module, __: tuple, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            last_map[:] = [output]

    hooks = [layer.register_forward_hook(keep) for layer in network.backbone.modules()]
    try:
        model_input = torch.from_numpy(np.stack([preprocess(image, contract) for image in images]))
        logits = network(Normalize(contract)(model_input))
    finally:
        for hook in hooks:
            hook.remove()
    if not last_map or not last_map[0].requires_grad:
        return None
    (activations,) = last_map
    (gradients,) = torch.autograd.grad(logits[range(len(images)), class_ids].sum(), activations)
    heat = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu().detach()
    return list((heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-9)).numpy())
