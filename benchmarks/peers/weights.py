"""Write the ImageNet weights of all peers into one folder, from the packages that teachcam takes them from.

efficientnet_lite0.onnx      features for scikit-learn
efficientnet_lite0.pth       for timm, in fastai
efficientnet_lite0_tfjs/     for TensorFlow.js, in Teachable Machine
hub/checkpoints/             SqueezeNet 1.1 where torchvision looks for it, if TORCH_HOME is the folder
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
import torchvision
from onnx import numpy_helper

from teachcam.teach.lite0 import write_lite0
from teachcam.train.model.squeezenet_ndf import squeezenet_from_ndf
from teachcam.train.model.timm_backbones import build_timm

LITE0 = "efficientnet_lite0"
LAST_ACTIVATION = "out_relu"  # the name of MobileNetV2's last activation, which Teachable Machine cuts at


def write_weights(folder: Path) -> None:
    """Write all files."""
    (folder / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(squeezenet_from_ndf(), folder / "hub/checkpoints" / url.rsplit("/", 1)[1])
    network, _ = build_timm(LITE0, "imagenet")
    torch.save(network.state_dict(), folder / f"{LITE0}.pth")
    write_lite0(folder / f"{LITE0}.onnx")
    _write_tfjs(onnx.load(folder / f"{LITE0}.onnx"), folder / f"{LITE0}_tfjs")


def _write_tfjs(model: onnx.ModelProto, folder: Path) -> None:
    """Write the ONNX graph as a layers model of TensorFlow.js. Its input is -1 to 1, RGB, [N, 224, 224, 3]."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [_layer("InputLayer", "images", [], batch_input_shape=[None, 224, 224, 3], dtype="float32")]
    layer_of = {}  # the layer that makes a tensor of the graph
    weights: list[tuple[str, np.ndarray]] = []
    for node in model.graph.node:
        source = layer_of.get(node.input[0], "images")
        name = node.output[0]
        if node.op_type == "Conv":
            kernel, bias = arrays[node.input[1]], arrays[node.input[2]]
            if source == "images":
                kernel = kernel * 127.5  # the graph takes 0 to 255
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            settings = {"strides": list(attributes["strides"]), "kernel_size": list(attributes["kernel_shape"])}
            kind = "Conv2D" if attributes["group"] == 1 else "DepthwiseConv2D"
            if kind == "Conv2D":
                settings["filters"] = len(kernel)
            layers.append(_layer(kind, name, [source], padding="same", use_bias=True, **settings))
            # [out, in, height, width], or [channels, 1, height, width], to TensorFlow's order of axes
            ordered = kernel.transpose(2, 3, 1, 0) if kind == "Conv2D" else kernel.transpose(2, 3, 0, 1)
            kernel_name = "kernel" if kind == "Conv2D" else "depthwise_kernel"
            weights += [(f"{name}/{kernel_name}", ordered), (f"{name}/bias", bias)]
        elif node.op_type == "Clip":
            layers.append(_layer("ReLU", name, [source], max_value=6))
        elif node.op_type == "Add":
            layers.append(_layer("Add", name, [source, layer_of[node.input[1]]]))
        elif node.op_type == "GlobalAveragePool":
            break  # Teachable Machine adds its own
        else:
            name = source  # Cast, Transpose, Sub: the input has this form already
        layer_of[node.output[0]] = name
    last = layers[-1]
    last["name"] = last["config"]["name"] = LAST_ACTIVATION
    config = {
        "name": LITE0,
        "layers": layers,
        "input_layers": [["images", 0, 0]],
        "output_layers": [[LAST_ACTIVATION, 0, 0]],
    }
    specs = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in weights]
    text = {
        "modelTopology": {"class_name": "Model", "config": config, "keras_version": "2.4.0", "backend": "tensorflow"},
        "weightsManifest": [{"paths": ["weights.bin"], "weights": specs}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(json.dumps(text))
    (folder / "weights.bin").write_bytes(b"".join(np.ascontiguousarray(array, "<f4").tobytes() for _, array in weights))


def _layer(kind: str, name: str, sources: list[str], **settings: object) -> dict:
    inputs = [[[source, 0, 0, {}] for source in sources]] if sources else []
    return {"class_name": kind, "name": name, "config": {"name": name, **settings}, "inbound_nodes": inputs}
