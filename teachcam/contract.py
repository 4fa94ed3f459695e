"""The contract: what a model promises about its input and output, and the one function that makes that input.

Training writes the contract into the checkpoint, export copies it into the ONNX file, live reads it from there.
Evaluation, parity and the live loop all call `preprocess`; there is no second way from a frame to a model's input.

Needs numpy and OpenCV only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from teachcam.errors import ContractError

VERSION = 2
METADATA_KEY = "teachcam.contract"  # where an ONNX file carries it


@dataclass(frozen=True)
class TrainingInfo:
    """What a model was trained on, and how good it was there."""

    backbone: str = ""
    head: str = "linear"  # or mlp
    dataset: str = ""  # fingerprint: a hash of the images and their labels
    validation_accuracy: float | None = None  # 0 to 1; None where nothing could be held out
    validation_images: int = 0
    optimistic: bool = False  # whether validation images come from sessions that training saw
    versions: dict[str, str] = field(default_factory=dict)  # of Python, torch and torchvision
    processor: str = ""  # the CPU or GPU on which the accuracy was measured


@dataclass(frozen=True)
class Contract:
    """What a model promises. `mean` and `std` are of 0-1 values in `color_order`, and are applied in the graph."""

    labels: tuple[str, ...]  # in the order of the model's outputs
    input_size: tuple[int, int]  # height, width in pixels
    color_order: str = "RGB"  # or BGR, or GRAY: three channels all the same
    resize: str = "area-linear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    temperature: float = 1.0  # logits are divided by it before the softmax
    unknown_threshold: float = 0.0  # an answer with less confidence than this is "unknown"
    trained_on: TrainingInfo = field(default_factory=TrainingInfo)
    version: int = VERSION

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read what `to_json` wrote. Raises ContractError for anything else, or another version."""
        try:
            fields = json.loads(text)
            version = fields["version"]
            if version != VERSION:
                raise ContractError(
                    f"the model's contract is version {version!r}, this teachcam knows version {VERSION}: "
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
                f"the model wants its frames as {contract.color_order}, resized by {contract.resize}: "
                "this teachcam can't do that, update it"
            )
        return contract

    def _check(self) -> None:
        """Raise ValueError or TypeError where a value is not what it says."""
        height, width = self.input_size
        sound = (
            all(isinstance(label, str) for label in self.labels)
            and len(set(self.labels)) == len(self.labels) > 0
            and all(isinstance(size, int) and 8 <= size <= 4096 for size in (height, width))
            and len(self.mean) == len(self.std) == 3
            and all(abs(value) < 10 for value in self.mean)
            and all(0 < value < 10 for value in self.std)
            and 0 < self.temperature < 1000
            and 0 <= self.unknown_threshold <= 1
            and all(isinstance(name, str) for name in (self.trained_on.backbone, self.trained_on.head))
        )
        if not sound:
            raise ValueError
