"""Measure how much memory the live loop gains in 100,000 frames, and test it with faults.

    python benchmarks/live_soak.py [FRAMES]

Then the camera fails 50 times and the model is replaced 50 times, by a broken file every fifth time. The benchmark
fails if a prediction ever has the labels of another model.

The camera delivers images from memory at 1,000 FPS. The models are SqueezeNets for 64x64 images, and their labels
contain the model's number.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.export.from_torch.graph import write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.targets import TARGETS
from teachcam.files import write_atomic
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.sinks.base import FrameResult
from teachcam.live.sinks.text import JsonLines
from teachcam.processor import processor_name
from teachcam.train.model.backbones import build_network
from teachcam.train.model.inference import InferenceModel

NUM_FAULTS = 50
SIZE = (64, 64)


class Source:
    """A camera that delivers 1,000 frames a second and fails once whenever `fails` is set."""

    live, fps = True, 1000.0
    images = render("palm", 1, 30, 320, 240)
    fails = threading.Event()
    num_opened = 0

    def __init__(self):
        type(self).num_opened += 1

    def read(self) -> np.ndarray | None:
        """Return a new array for each frame, as a real camera does."""
        if self.fails.is_set():
            self.fails.clear()
            return None
        time.sleep(0.001)
        return self.images[time.monotonic_ns() % len(self.images)].copy()

    def close(self) -> None:
        """Release nothing."""


class MemoryCheck:
    """A sink that stores this process's memory every 1,000 frames, and checks the labels of every prediction."""

    def __init__(self):
        self.megabytes: list[float] = []
        self.label_sets: set[tuple[str, ...]] = set()
        self._num_frames = 0

    def __call__(self, result: FrameResult) -> bool:
        """Check one prediction."""
        if tuple(result.prediction.probabilities) != result.labels or result.prediction.label not in result.labels:
            raise SystemExit(f"a prediction has the labels of another model: {result}")
        self.label_sets.add(result.labels)
        self._num_frames += 1
        if self._num_frames % 1000 == 0:
            self.megabytes.append(resident_megabytes())
        return True

    def close(self) -> None:
        """Release nothing."""


def main() -> None:
    """Run both parts and print a line for each."""
    num_frames = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  discards the JSON lines
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(path, 0)
        sink, classifier = MemoryCheck(), Classifier(path)
        with Camera("0", opener=lambda *_: Source()) as camera:
            loop(camera, classifier, [JsonLines(live=True), sink], max_frames=num_frames)
        growth = sink.megabytes[-1] - sink.megabytes[0]
        print(
            f"{num_frames} frames: {sink.megabytes[0]:.1f} MB after 1,000 frames, {growth:+.1f} MB at the end, "
            f"on {processor_name()}",
            file=sys.stderr,
        )

        models = [Path(folder) / f"{number}.onnx" for number in range(NUM_FAULTS)]
        for number, model in enumerate(models):
            write_model(model, number + 1)
        contents = [model.read_bytes() for model in models]
        contents[4::5] = [content[: len(content) // 2] for content in contents[4::5]]
        sink, stop, watcher = MemoryCheck(), threading.Event(), ModelWatcher(path, "cpu", period=0.05)

        def cause_faults() -> None:
            for content in contents:
                write_atomic(path, content)
                time.sleep(0.4)
            for number in range(1, NUM_FAULTS + 1):
                Source.fails.set()
                while Source.num_opened < number:
                    time.sleep(0.1)
                time.sleep(0.2)
            stop.set()

        Source.num_opened = -1  # count only how often it is opened again
        threading.Thread(target=cause_faults).start()
        with Camera("0", opener=lambda *_: Source()) as camera:
            num_frames = loop(camera, Classifier(path), [JsonLines(live=True), sink], stop=stop, watcher=watcher)
        watcher.close()
        print(
            f"{num_frames} frames: camera opened again {Source.num_opened} times, {len(sink.label_sets)} models ran, "
            f"on {processor_name()}",
            file=sys.stderr,
        )


def write_model(path: Path, number: int) -> None:
    """Write a model whose labels contain its number."""
    contract = Contract(labels=(f"yes{number}", f"no{number}"), input_size=SIZE)
    network, _ = build_network("squeezenet1_1", 2, seed=number)
    write_onnx(path, InferenceModel(network, contract), SIZE, TARGETS["desktop"])
    write_metadata(path, contract, {})


def resident_megabytes() -> float:
    """Return this process's resident memory in MB (Linux only)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
