"""Compute the features of images with a frozen backbone, once, so that a head can be trained on them."""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.preprocessing import preprocess
from teachcam.train.engine.context import Context
from teachcam.train.model.backbones import Network, half_precision
from teachcam.train.model.inference import Normalize

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
MIN_FOR_ONNX = 200  # images; on a CPU ONNX Runtime takes a third of PyTorch's time, and a second to start


@torch.no_grad()
def extract_features(
    network: Network, images: Sequence[np.ndarray], contract: Contract, context: Context
) -> torch.Tensor:
    """Return the backbone's features of images, float32 [N, D] on the context's device.

    Each image runs through the backbone once. With several processes, each computes a part and all get the whole.

    Args:
        network: its backbone is moved to the device and set to evaluation mode.
        images: uint8 [H, W, 3], BGR, any size.
        contract: of the network's input.
        context: device, processes, progress and memory of the training.
    """
    device, started = context.device, time.monotonic()
    model = nn.Sequential(Normalize(contract), network.backbone).to(device).eval()
    model.to(memory_format=torch.channels_last)
    dtype = half_precision(device)
    shard = context.processes.shard(range(len(images)))
    rows = [torch.empty(0, network.feature_size, device=device)]

    def prepare(indices: Sequence[int]) -> np.ndarray:
        return np.stack([preprocess(images[index], contract) for index in indices])

    def run_in_torch(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return model(inputs).float()

    run: Callable[[torch.Tensor], torch.Tensor] = run_in_torch
    if device.type == "cpu" and len(shard) >= MIN_FOR_ONNX:
        run = _open_in_onnxruntime(model, contract.input_size) or run_in_torch
    context.progress.begin("features", 1, len(shard))
    batches = [shard[start : start + BATCH_SIZE] for start in range(0, len(shard), BATCH_SIZE)]
    for prepared in context.prefetch(batches, prepare):
        inputs = torch.from_numpy(prepared).to(device)
        rows += context.micro_batcher.map_chunks(run, inputs)
        context.progress.advance(len(inputs))
    features = context.processes.gather(torch.cat(rows), len(images))
    context.count_images(len(images), started)
    return features


def _open_in_onnxruntime(model: nn.Module, size: tuple[int, int]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return a function that computes what a model does, by ONNX Runtime. None if the model can't be converted.

    Args:
        model: from uint8 [N, H, W, 3] to float32 [N, D].
        size: height and width of the images.
    """
    graph = io.BytesIO()
    axes = {name: {0: "batch"} for name in ("images", "features")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.zeros(2, *size, 3, dtype=torch.uint8),),
                graph,  # type: ignore[arg-type]  # the older exporter writes to a file object, too
                input_names=["images"],
                output_names=["features"],
                dynamic_axes=axes,
                opset_version=17,
                dynamo=False,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, for operators that one of the two lacks
        logger.debug("the backbone runs in PyTorch: %s", error)
        return None
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
