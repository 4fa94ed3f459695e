"""Compute the features of images with a frozen backbone, once, so that a head can be trained on them."""

from __future__ import annotations

import hashlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import onnxruntime
import torch
from torch import nn

from teachcam.contract import Contract
from teachcam.feature_store import FeatureStore
from teachcam.preprocessing import preprocess
from teachcam.train.data.images import StoredImages
from teachcam.train.engine.context import Context
from teachcam.train.engine.loop import fill_batch
from teachcam.train.model.backbones import Network, half_precision
from teachcam.train.model.inference import Normalize

logger = logging.getLogger(__name__)

BATCH_SIZES = {"cpu": 8, "cuda": 32}  # on a CPU 32 are no faster, and take 600 MB more
MIN_TO_STORE = 1000  # images, whose features take seconds; fewer are not worth a file
STORED_AT_ONCE = 10_000  # images: 50 MB of features; an interruption loses no more than these
MIN_FOR_ONNX = 200  # images; on a CPU ONNX Runtime takes a third of PyTorch's time, and a second to start


def extract_features(
    network: Network, images: Sequence[np.ndarray], contract: Contract, context: Context
) -> torch.Tensor:
    """Return the backbone's features of images, float32 [N, D] on the context's device.

    Each image runs through the backbone once. With several processes, each computes a part and all get the whole.
    Features of many images are kept on disk, see `extract_stored`.

    Args:
        network: Network, whose backbone is moved to the device and set to evaluation mode.
        images: Images, uint8 [H, W, 3], BGR, any size.
        contract: Contract of the network's input.
        context: Surroundings of the training.
    """
    model = FrozenModel(network.backbone, contract, context, len(images))
    return extract_stored(model, images, network.feature_size, context)


def extract_stored(
    model: FrozenModel, images: Sequence[np.ndarray], num_features: int, context: Context
) -> torch.Tensor:
    """Return a model's only output for images, float32 [N, D] on the device, from the feature store where it is known.

    The store is used for MIN_TO_STORE images or more that have hashes (`StoredImages`), and by one process: several
    would have to agree on what is known.

    Args:
        model: Model with one output.
        images: Images, uint8 [H, W, 3], BGR, any size.
        num_features: Number of features of an image.
        context: Surroundings of the training. Without `feature_store` nothing is stored.
    """
    path, is_worth_it = context.feature_store, context.processes.count == 1 and len(images) >= MIN_TO_STORE
    if path is None or not is_worth_it or not isinstance(images, StoredImages):
        return model.run(images)[0]
    features, missing = np.zeros((len(images), num_features), np.float32), []
    keys = [bytes.fromhex(hash_of_file) for hash_of_file in images.hashes]
    with closing(FeatureStore(path, model.fingerprint(), np.dtype((np.float32, num_features)))) as known:
        for index, key in enumerate(keys):
            if (row := known.get(key)) is None:
                missing.append(index)
            else:
                features[index] = row
        if len(missing) < len(images):
            context.progress.say(f"features of {len(images) - len(missing)} images are known from an earlier run")
        for start in range(0, len(missing), STORED_AT_ONCE):
            part = missing[start : start + STORED_AT_ONCE]
            features[part] = model.run(images, part)[0].cpu().numpy()
            known.put({keys[index]: features[index] for index in part})
    return torch.from_numpy(features).to(context.device)


class FrozenModel:
    """A network that is not trained, as fast as this machine runs it: by ONNX Runtime on a CPU, by PyTorch on a GPU."""

    def __init__(self, network: nn.Module, contract: Contract, context: Context, num_images: int):
        """Prepare to run it.

        Args:
            network: Takes normalized images and returns a tensor, or several. It is moved to the device, and set to
                evaluation mode.
            contract: Contract of the network's input.
            context: Surroundings of the training.
            num_images: About the number of images that will be run.
        """
        self._contract, self._context = contract, context
        self._model = nn.Sequential(Normalize(contract), network).to(context.device).eval()
        self._model.to(memory_format=torch.channels_last)
        self._run: Callable = self._run_in_torch
        if context.device.type == "cpu" and num_images >= MIN_FOR_ONNX * context.processes.count:
            self._run = _open_in_onnxruntime(self._model, contract.input_size) or self._run_in_torch

    @torch.no_grad()
    def run(self, images: Sequence[np.ndarray], indices: Sequence[int] | None = None) -> list[torch.Tensor]:
        """Return the outputs for images: each [N, ...] on the device.

        The first output is float32; others, which may be large, are float16. Images are read batch by batch.

        Args:
            images: Images, uint8 [H, W, 3], BGR, any size.
            indices: Indices of the images to run; by default all.
        """
        context, started = self._context, time.monotonic()
        indices = range(len(images)) if indices is None else indices
        shard = indices[context.processes.rank :: context.processes.count]

        def prepare(indices: Sequence[int]) -> np.ndarray:
            return np.stack([preprocess(images[index], self._contract) for index in indices])

        context.progress.begin("features", 1, len(shard))
        size = BATCH_SIZES[context.device.type]
        batches = [shard[start : start + size] for start in range(0, len(shard), size)]
        rows: list[list[torch.Tensor]] = []
        for prepared in context.prefetch(batches, prepare):
            inputs = torch.from_numpy(fill_batch(prepared, size, context.device)).to(context.device)
            rows += context.micro_batcher.map_chunks(self._run, inputs)
            context.progress.advance(len(prepared))
        if not rows:  # more processes than images, or no images: run one for the shapes
            height, width = self._contract.input_size
            empty = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=context.device)
            rows = [[output[:0] for output in self._run_in_torch(empty)]]
        outputs = [torch.cat(parts)[: len(shard)] for parts in zip(*rows, strict=True)]
        outputs = [context.processes.gather(output, len(indices)) for output in outputs]
        context.count_images(len(indices), started)
        return outputs

    def fingerprint(self) -> str:
        """Return a name for the model, its weights, its preprocessing and its kind of device."""
        contract, device = self._contract, self._context.device
        preprocessing = (contract.input_size, contract.color_order, contract.mean, contract.std)
        text = f"{self._model} {preprocessing} {device.type} {half_precision(device)}"
        digest = hashlib.sha256(text.encode())
        for name, tensor in self._model.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def _run_in_torch(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        dtype = half_precision(self._context.device)
        with torch.autocast(inputs.device.type, dtype, enabled=dtype is not None):
            return _shrink(self._model(inputs))


def _shrink(outputs: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the first output as float32, and others as float16."""
    first, *others = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    largest = torch.finfo(torch.float16).max
    return [first.float(), *(output.clamp(-largest, largest).half() for output in others)]


def _open_in_onnxruntime(
    model: nn.Module, size: tuple[int, int]
) -> Callable[[torch.Tensor], list[torch.Tensor]] | None:
    """Return a function that computes what a model does, by ONNX Runtime. None if the model can't be converted.

    Args:
        model: Model from uint8 [N, H, W, 3] to one or several tensors [N, ...].
        size: Height and width of the images.
    """
    graph = io.BytesIO()
    sample = torch.zeros(2, *size, 3, dtype=torch.uint8)
    try:
        names = [f"output{index}" for index, _ in enumerate(_shrink(model(sample)))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (sample,),
                graph,  # type: ignore[arg-type]  # the older exporter writes to a file object, too
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in ("images", *names)},
                opset_version=17,
                dynamo=False,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, for operators that one of the two lacks
        logger.debug("the backbone runs in PyTorch: %s", error)
        return None
    return lambda images: _shrink(
        [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]
    )
