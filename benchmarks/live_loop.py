"""From a 480x640 frame to a label: our loop against the thumbs tutorial's, same network, same run.

    python benchmarks/live_loop.py

The tutorial's loop is eager PyTorch with its own preprocessing (resize, to tensor, normalise, softmax). Both are
timed in turn, a block of each at a time, so that a machine whose speed drifts treats them alike; the weights are
random, which changes no time. Also shows how far the loop is from ONNX Runtime's bare `run`.
"""

from __future__ import annotations

import platform
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

from collect.synthetic import render
from export.graph import write_onnx
from export.metadata import write_metadata
from export.targets import TARGETS
from live.classifier import Classifier
from train.backbones import INPUT_SIZE, Deployed, Network, build_network
from train.contract import Contract, preprocess

BLOCKS, FRAMES = 10, 15
LABELS = ("none", "thumbs_down", "thumbs_up")


def main() -> None:
    """Print one row a backbone."""
    image = render("thumbs_up", 1, 1)[0]
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}; median of {BLOCKS} blocks of {FRAMES} frames"
    )
    print(f"{'backbone':<16}{'tutorial ms':>12}{'ours ms':>10}{'bare run ms':>13}{'tutorial / ours':>17}")
    for backbone in ("squeezenet1_1", "alexnet", "resnet18"):
        network, _ = build_network(backbone, len(LABELS))
        contract = Contract(labels=LABELS, input_size=INPUT_SIZE, trained_on={"backbone": backbone})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(path, Deployed(network, contract), INPUT_SIZE, TARGETS["desktop"])
            write_metadata(path, contract, {})
            classifier = Classifier(path, "cpu")
        prepared = {"frames": preprocess(image, contract)[None]}
        contenders = (
            tutorial_loop(network, image),
            partial(classifier.classify, image),
            partial(classifier.session.run, ["probabilities"], prepared),
        )
        times = np.array([[block(contender) for contender in contenders] for _ in range(BLOCKS + 2)])[2:]
        tutorial, ours, bare = np.median(times, axis=0)
        ratio = np.median(times[:, 0] / times[:, 1])
        print(f"{backbone:<16}{tutorial:>12.2f}{ours:>10.2f}{bare:>13.2f}{ratio:>17.1f}")


def tutorial_loop(network: Network, image: np.ndarray) -> Callable[[], int]:
    """Return the thumbs tutorial's way from a frame to a label."""
    network = network.eval()
    mean, std = (torch.tensor(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def answer() -> int:
        resized = cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)
        tensor = torchvision.transforms.functional.to_tensor(resized)
        tensor.sub_(mean[:, None, None]).div_(std[:, None, None])
        with torch.no_grad():
            return int(torch.softmax(network(tensor[None]), dim=1).argmax())

    return answer


def block(contender: Callable) -> float:
    """Return the mean milliseconds of a call, over one block."""
    started = time.perf_counter()
    for _ in range(FRAMES):
        contender()
    return (time.perf_counter() - started) / FRAMES * 1000


if __name__ == "__main__":
    main()
