"""The contract: what a model promises about its input and output, and the one function that makes that input.

Training writes the contract into the checkpoint, export copies it into the ONNX file, live reads it from there.
Evaluation, parity and the live loop all call `preprocess`; there is no second way from a frame to a model's input.

Needs numpy and OpenCV only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np

from collect.cli import UserError

VERSION = 1
METADATA_KEY = "teachcam.contract"  # where an ONNX file carries it


class ContractError(UserError):
    """A contract that is missing, broken, or of a version this code does not know."""


@dataclass(frozen=True)
class Contract:
    """What a model promises. `mean` and `std` are of 0-1 values in `colour_order`, and are applied in the graph."""

    labels: tuple[str, ...]  # in the order of the model's outputs
    input_size: tuple[int, int]  # height, width in pixels
    colour_order: str = "RGB"
    resize: str = "area-linear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    temperature: float = 1.0  # logits are divided by it before the softmax
    unknown_threshold: float = 0.0  # an answer with less confidence than this is "unknown"
    trained_on: dict = field(default_factory=dict)  # dataset fingerprint, backbone, versions, held-out accuracy
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
                    f"the model's contract is version {version}, this teachcam knows version {VERSION}: "
                    "export the model again, or update teachcam"
                )
            lists = {name: tuple(fields[name]) for name in ("labels", "input_size", "mean", "std")}
            contract = cls(**{**fields, **lists})
        except (ValueError, KeyError, TypeError):
            raise ContractError("the model's contract can't be read: export the model again") from None
        if contract.resize != "area-linear" or contract.colour_order not in ("RGB", "BGR"):
            raise ContractError(
                f"the model wants its frames as {contract.colour_order}, resized by {contract.resize}: "
                "this teachcam can't do that, update it"
            )
        return contract


def preprocess(frame: np.ndarray, contract: Contract) -> np.ndarray:
    """Turn a frame into a model's input: the whole of it, stretched to the contract's size.

    `frame` is uint8 [H, W, 3], BGR. Returns uint8 [height, width, 3] in the contract's colour order.

    A large frame is first averaged down by powers of two (`shrink`) and then interpolated by a factor under two,
    so that no pixel is skipped: nearly as smooth as averaging all the way, at a sixth of its time (0.15 ms for
    640x480).
    """
    height, width = contract.input_size
    frame = shrink(frame, contract.input_size)
    if frame.shape[:2] != (height, width):
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if contract.colour_order == "RGB" else frame


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Take the first step of `preprocess`: average a frame down by powers of two to no less than `size`.

    `preprocess` gives the same for what this returns as for the frame itself, so it is how frames are kept in memory.
    """
    height, width = size
    across, down = _halvings(frame.shape[1], width), _halvings(frame.shape[0], height)
    if across == down == 1:
        return frame
    smaller = (frame.shape[1] // across, frame.shape[0] // down)
    return cv2.resize(frame, smaller, interpolation=cv2.INTER_AREA)


def _halvings(size: int, target: int) -> int:
    """Return the largest power of two that `size` can be divided by and still be at least `target`."""
    return 1 << max(0, (size // target).bit_length() - 1)
