"""From a 480x640 frame to a label: our loop against the thumbs tutorial's, same network, same run.

    python benchmarks/live_loop.py

The tutorial's loop is eager PyTorch with its own preprocessing (resize, to tensor, normalize, softmax). All are timed
in turn, a block of each at a time, so that a machine whose speed drifts treats them alike; the weights are random,
which changes no time. `over` is what we take beyond ONNX Runtime's bare `run` on a prepared input.
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

from teachcam.collect.synthetic import render
from teachcam.contract import Contract, TrainingInfo
from teachcam.export.graph import fold_normalization, write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.quantize import to_int8
from teachcam.export.targets import TARGETS
from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess
from teachcam.train.model.backbones import INPUT_SIZE, Network, build_network
from teachcam.train.model.inference import InferenceModel

BLOCKS, FRAMES = 10, 15
LABELS = ("none", "thumbs_down", "thumbs_up")


def main() -> None:
    """Print one row a backbone and precision."""
    images = render("thumbs_up", 1, 20)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}; median of {BLOCKS} blocks of {FRAMES} frames"
    )
    print(
        f"{'backbone':<15}{'':<6}{'tutorial ms':>12}{'ours ms':>9}{'bare run ms':>13}{'over ms':>9}"
        f"{'tutorial / ours':>17}"
    )
    for backbone in ("squeezenet1_1", "alexnet", "resnet18"):
        network, _ = build_network(backbone, len(LABELS))
        contract = Contract(labels=LABELS, input_size=INPUT_SIZE, trained_on=TrainingInfo(backbone))
        with tempfile.TemporaryDirectory() as folder:
            classifiers = write_models(Path(folder), network.eval(), contract, images)
        prepared = {"images": preprocess(images[0], contract)[None]}
        contenders = [tutorial_loop(network, images[0])]
        for classifier in classifiers.values():
            contenders.append(partial(classifier.classify, images[0]))
            contenders.append(partial(classifier.session.run, ["probabilities"], prepared))
        times = np.array([[block(contender) for contender in contenders] for _ in range(BLOCKS + 2)])[2:]
        for index, precision in enumerate(classifiers):
            tutorial, ours, bare = times[:, 0], times[:, 1 + 2 * index], times[:, 2 + 2 * index]
            row = [np.median(column) for column in (tutorial, ours, bare, ours - bare, tutorial / ours)]
            print(
                f"{backbone:<15}{precision:<6}{row[0]:>12.2f}{row[1]:>9.2f}{row[2]:>13.2f}{row[3]:>9.2f}{row[4]:>17.1f}"
            )


def write_models(folder: Path, network: Network, contract: Contract, images: list[np.ndarray]) -> dict[str, Classifier]:
    """Export in fp32 and in int8, as export/to_onnx.py does it for a CPU; `images` are uint8 [H, W, 3] BGR."""
    model, target = InferenceModel(network, contract), TARGETS["desktop"]
    fp32, folded, int8 = (folder / f"{name}.onnx" for name in ("fp32", "folded", "int8"))
    write_onnx(fp32, model, INPUT_SIZE, target)
    write_onnx(folded, fold_normalization(model, INPUT_SIZE), INPUT_SIZE, target)
    to_int8(folded, int8, [preprocess(image, contract)[None] for image in images], target)
    for path in (fp32, int8):
        write_metadata(path, contract, {})
    return {path.stem: Classifier(path, "cpu") for path in (fp32, int8)}


def tutorial_loop(network: Network, image: np.ndarray) -> Callable[[], int]:
    """Return the thumbs tutorial's way from a frame to a label."""
    mean, std = (torch.tensor(values) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def answer() -> int:
        resized = cv2.cvtColor(cv2.resize(image, (224, 224)), cv2.COLOR_BGR2RGB)
        tensor = torchvision.transforms.functional.to_tensor(resized)
        tensor.sub_(mean[:, None, None]).div_(std[:, None, None])
        with torch.no_grad():
            return int(torch.softmax(network(tensor[None]), dim=1).argmax())

    return answer


def block(contender: Callable) -> float:
    """Return the mean milliseconds of a call, over one block; the threads of the one before are still on their way."""
    for _ in range(3):
        contender()
    started = time.perf_counter()
    for _ in range(FRAMES):
        contender()
    return (time.perf_counter() - started) / FRAMES * 1000


if __name__ == "__main__":
    main()
