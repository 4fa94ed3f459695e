"""The contract of a model: its labels, the image that it expects as input, and how it was trained.

Training writes the contract into the checkpoint. Export copies it into the ONNX file, where live reads it. The function
that makes the input accordingly is `preprocess` in teachcam/preprocessing.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from teachcam.errors import ContractError
from teachcam.files import parse_json

VERSION = 2
METADATA_KEY = "teachcam.contract"  # of the entry in an ONNX file's metadata


@dataclass(frozen=True)
class TrainingInfo:
    """A record of a model's training, with its accuracy on validation images."""

    backbone: str = ""
    head: str = "linear"  # or "mlp", "sqrt" or "sqrt_unknown": see `Network` in train/model/backbones.py
    dataset: str = ""  # fingerprint of the images and their labels, see train/data/dataset.py
    validation_accuracy: float | None = None  # 0 to 1; None if there were too few scenes to set some aside
    validation_images: int = 0
    trained_on_validation: bool = False  # whether the last training used those images too
    optimistic: bool = False  # whether training saw other images of the validation images' scenes
    versions: dict[str, str] = field(default_factory=dict)  # of Python, torch and torchvision
    processor: str = ""  # CPU or GPU that measured the accuracy


@dataclass(frozen=True)
class Contract:
    """A model's description: the input that it expects, and the meaning of its outputs."""

    labels: tuple[str, ...]  # in the order of the model's outputs
    input_size: tuple[int, int]  # height and width in pixels
    color_order: str = "RGB"  # or "BGR", or "GRAY": three equal channels
    resize: str = "area-linear"  # the only way so far: `resize` in teachcam/preprocessing.py
    # Of each channel in color_order, for values from 0 to 1. The graph itself normalizes with them.
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    temperature: float = 1.0  # the graph divides logits by it before the softmax (calibration, Guo 2017)
    unknown_threshold: float = 0.0  # a prediction with less confidence is "unknown"
    trained_on: TrainingInfo = field(default_factory=TrainingInfo)
    version: int = VERSION

    def to_json(self) -> str:
        """Return the contract as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read what `to_json` returned. Raises ContractError for other text, or for another version."""
        try:
            fields = parse_json(text)
            version = fields["version"]
            if version != VERSION:
                raise ContractError(
                    f"the model's contract is of version {version!r}, this teachcam reads version {VERSION}: "
                    "export the model again, or update teachcam"
                )
            lists = {name: fields[name] for name in ("labels", "input_size", "mean", "std")}
            if not all(isinstance(value, list) for value in lists.values()):
                raise ValueError(lists)
            lists = {name: tuple(value) for name, value in lists.items()}
            contract = cls(**{**fields, **lists, "trained_on": TrainingInfo(**fields["trained_on"])})
            contract._check()
        except (ValueError, KeyError, TypeError):
            raise ContractError("the model's contract can't be read: export the model again") from None
        if contract.resize != "area-linear" or contract.color_order not in ("RGB", "BGR", "GRAY"):
            raise ContractError(
                f"the model expects {contract.color_order} images resized by {contract.resize}, "
                "which this teachcam can't do: update teachcam"
            )
        return contract

    def _check(self) -> None:
        """Raise ValueError or TypeError if a value is not possible."""
        height, width = self.input_size
        is_valid = (
            all(isinstance(label, str) and label.encode() for label in self.labels)  # encode: raises for no Unicode
            and len(set(self.labels)) == len(self.labels) > 0
            and all(isinstance(size, int) and 8 <= size <= 4096 for size in (height, width))
            and len(self.mean) == len(self.std) == 3
            and all(abs(value) < 10 for value in self.mean)
            and all(0 < value < 10 for value in self.std)
            and 0 < self.temperature < 1000
            and 0 <= self.unknown_threshold <= 1
            and all(isinstance(name, str) for name in (self.trained_on.backbone, self.trained_on.head))
        )
        if not is_valid:
            raise ValueError
