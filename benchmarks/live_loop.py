"""Measure the time from a 480x640 image to its label, and compare it with the loop of NVIDIA's thumbs tutorial.

    python benchmarks/live_loop.py [--provider cuda]

The tutorial runs the same network in eager PyTorch and does its own preprocessing (resize, to tensor, normalize,
softmax). `overhead` is our time minus that of ONNX Runtime's `run` alone. On a GPU, all three use it.

Blocks of all programs take turns, so that all suffer alike if the machine's speed changes. The weights are random,
which does not change the times.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
import torchvision

from teachcam.collect.synthetic import render
from teachcam.contract import Contract, TrainingInfo
from teachcam.export.from_torch.graph import fold_normalization, write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.quantize import to_half, to_int8
from teachcam.export.targets import TARGETS
from teachcam.live.classifier import Classifier
from teachcam.onnx_session import open_session
from teachcam.preprocessing import preprocess
from teachcam.processor import processor_name
from teachcam.train.model.backbones import INPUT_SIZE, Network, build_network
from teachcam.train.model.inference import InferenceModel

NUM_BLOCKS, IMAGES_PER_BLOCK = 10, 15
WARM_UP_BLOCKS, WARM_UP_IMAGES = 2, 3
LABELS = ("none", "thumbs_down", "thumbs_up")


def main() -> None:
    """Print one row for each backbone and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--provider", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    provider = parser.parse_args().provider
    device = torch.device("cpu" if provider == "cpu" else "cuda")
    processor = processor_name() if provider == "cpu" else f"{provider}, {torch.cuda.get_device_name()}"
    images = render("thumbs_up", 1, 20)
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}; "
        f"median of {NUM_BLOCKS} blocks of {IMAGES_PER_BLOCK} images"
    )
    print(
        f"{'backbone':<15}{'':<6}{'tutorial ms':>12}{'ours ms':>9}{'run alone ms':>14}{'overhead ms':>13}"
        f"{'tutorial / ours':>17}  processor"
    )
    for backbone in ("squeezenet1_1", "alexnet", "resnet18"):
        network, _ = build_network(backbone, len(LABELS))
        contract = Contract(labels=LABELS, input_size=INPUT_SIZE, trained_on=TrainingInfo(backbone))
        with tempfile.TemporaryDirectory() as folder:
            classifiers = write_models(Path(folder), network.eval(), contract, images, provider)
            bare_sessions = [open_session(classifier.path, provider)[0] for classifier in classifiers.values()]
        prepared = {"images": preprocess(images[0], contract)[None]}
        contenders = [tutorial_loop(network.to(device), images[0], device)]
        for classifier, ort_session in zip(classifiers.values(), bare_sessions, strict=True):
            contenders.append(partial(classifier.classify, images[0]))
            contenders.append(partial(ort_session.run, ["probabilities"], prepared))
        rounds = [[time_block(contender) for contender in contenders] for _ in range(WARM_UP_BLOCKS + NUM_BLOCKS)]
        times = np.array(rounds[WARM_UP_BLOCKS:])
        for index, precision in enumerate(classifiers):
            tutorial, ours, run_alone = times[:, 0], times[:, 1 + 2 * index], times[:, 2 + 2 * index]
            row = [np.median(column) for column in (tutorial, ours, run_alone, ours - run_alone, tutorial / ours)]
            print(
                f"{backbone:<15}{precision:<6}{row[0]:>12.2f}{row[1]:>9.2f}{row[2]:>14.2f}{row[3]:>13.2f}"
                f"{row[4]:>17.1f}  {processor}"
            )


def write_models(
    folder: Path, network: Network, contract: Contract, images: list[np.ndarray], provider: str
) -> dict[str, Classifier]:
    """Write the network in fp32 and, as export/to_onnx.py does, in int8 for a CPU and in fp16 for a GPU.

    `images` are uint8 [H, W, 3], BGR.
    """
    model, target = InferenceModel(network, contract), TARGETS["desktop"]
    other = "int8" if provider == "cpu" else "fp16"
    fp32, folded, smaller = (folder / f"{name}.onnx" for name in ("fp32", "folded", other))
    write_onnx(fp32, model, INPUT_SIZE, target)
    write_onnx(folded, fold_normalization(model, INPUT_SIZE), INPUT_SIZE, target)
    if other == "int8":
        to_int8(folded, smaller, [preprocess(image, contract)[None] for image in images], target)
    else:
        to_half(fp32, smaller)
    for path in (fp32, smaller):
        write_metadata(path, contract, {})
    return {path.stem: Classifier(path, provider) for path in (fp32, smaller)}


def tutorial_loop(network: Network, image: np.ndarray, device: torch.device) -> Callable[[], int]:
    """Return a function that classifies the image as the thumbs tutorial does."""
    mean, std = (torch.tensor(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def classify() -> int:
        resized = cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)
        tensor = torchvision.transforms.functional.to_tensor(resized)
        tensor.sub_(mean[:, None, None]).div_(std[:, None, None])
        with torch.no_grad():
            return int(torch.softmax(network(tensor[None].to(device)), dim=1).argmax())

    return classify


def time_block(contender: Callable) -> float:
    """Return the mean milliseconds of a call over one block."""
    for _ in range(WARM_UP_IMAGES):  # the threads of the program before are still ending
        contender()
    started = time.perf_counter()
    for _ in range(IMAGES_PER_BLOCK):
        contender()
    return (time.perf_counter() - started) / IMAGES_PER_BLOCK * 1000


if __name__ == "__main__":
    main()
