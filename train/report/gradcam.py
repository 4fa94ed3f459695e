"""Where a network looks: what in a frame speaks for an answer (Grad-CAM, Selvaraju et al. 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.model.backbones import Network
from teachcam.train.model.inference import Normalize


def activation_maps(
    network: Network, contract: Contract, frames: list[np.ndarray], class_ids: list[int]
) -> list[np.ndarray] | None:
    """Return for each frame (uint8 BGR, any size) what speaks for a class: float32 [h, w], 0 to 1, of the whole frame.

    None where the network keeps no picture up to its end, as a vision transformer. Runs on the CPU.
    """
    if not frames:
        return []
    network = network.cpu().eval()
    pictures: list[torch.Tensor] = []  # the newest layer's output that still has a height and a width

    def keep(_: nn.Module, __: tuple, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            pictures[:] = [output]

    hooks = [layer.register_forward_hook(keep) for layer in network.backbone.modules()]
    try:
        inputs = torch.from_numpy(np.stack([preprocess(frame, contract) for frame in frames]))
        logits = network(Normalize(contract)(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if not pictures or not pictures[0].requires_grad:
        return None
    (picture,) = pictures
    (gradient,) = torch.autograd.grad(logits[range(len(frames)), class_ids].sum(), picture)
    maps = (gradient.mean((2, 3), keepdim=True) * picture).sum(1).relu().detach()
    return list((maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-9)).numpy())
