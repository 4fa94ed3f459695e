"""Teach a camera to tell things apart, on a laptop or on a Jetson.

    from teachcam import Camera, Classifier

    for prediction in Classifier("runs/latest/model.onnx").predict_stream(Camera(0)):
        print(prediction.label, prediction.confidence)

What `__all__` lists is the public interface. Each name is imported when it is first used, so that `import teachcam`
needs neither torch nor OpenCV, and a device needs no torch at all.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = [
    "Camera",
    "Classifier",
    "Contract",
    "ExportConfig",
    "Prediction",
    "RunConfig",
    "UserError",
    "__version__",
    "export_model",
    "train_model",
]

# ONNX Runtime 1.29 and later sends usage statistics to its makers, on Linux too. It reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera
    from teachcam.contract import Contract
    from teachcam.errors import UserError
    from teachcam.export.conversion import ExportConfig
    from teachcam.export.from_torch.exporter import export as export_model
    from teachcam.live.classifier import Classifier
    from teachcam.live.prediction import Prediction
    from teachcam.train.run import train as train_model
    from teachcam.train.run_config import RunConfig

# Not `train` and `export`: those are the names of packages in here, and an import of one would hide the function.
_HOMES = {
    "Camera": ("teachcam.collect.camera", "Camera"),
    "Classifier": ("teachcam.live.classifier", "Classifier"),
    "Contract": ("teachcam.contract", "Contract"),
    "ExportConfig": ("teachcam.export.conversion", "ExportConfig"),
    "Prediction": ("teachcam.live.prediction", "Prediction"),
    "RunConfig": ("teachcam.train.run_config", "RunConfig"),
    "UserError": ("teachcam.errors", "UserError"),
    "export_model": ("teachcam.export.from_torch.exporter", "export"),
    "train_model": ("teachcam.train.run", "train"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'teachcam' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
