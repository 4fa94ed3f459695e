"""The live loop for 100,000 frames: its memory, a camera that goes away 50 times, a model that is replaced 50 times.

    python benchmarks/live_soak.py [FRAMES]

The camera is a source in memory at 1,000 frames a second, the models are SqueezeNets on 64x64 pixels whose labels name
them; every fifth of the new ones is a broken file. Ends with an error if an answer ever had another model's labels.
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
from teachcam.export.graph import write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.targets import TARGETS
from teachcam.files import write_atomic
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.sinks.base import Result
from teachcam.live.sinks.text import JsonLines
from teachcam.train.model.backbones import build_network
from teachcam.train.model.inference import InferenceModel

TIMES = 50
SIZE = (64, 64)


class Source:
    """A camera that gives 1,000 frames a second, and breaks when it is told to."""

    live, fps = True, 1000.0
    frames = render("palm", 1, 30, 320, 240)
    broken = threading.Event()
    opened = 0

    def __init__(self):
        type(self).opened += 1

    def read(self) -> np.ndarray | None:
        """Return a frame of its own, as a real camera does."""
        if self.broken.is_set():
            self.broken.clear()
            return None
        time.sleep(0.001)
        return self.frames[time.monotonic_ns() % len(self.frames)].copy()

    def close(self) -> None:
        """Nothing to give back."""


class Memory:
    """A sink that notes this process's memory, and looks at every answer's labels."""

    def __init__(self):
        self.megabytes: list[float] = []
        self.seen: set[tuple[str, ...]] = set()
        self._frames = 0

    def __call__(self, result: Result) -> bool:
        """Note it now and then."""
        if tuple(result.answer.probabilities) != result.labels or result.answer.label not in result.labels:
            raise SystemExit(f"an answer with another model's labels: {result}")
        self.seen.add(result.labels)
        self._frames += 1
        if self._frames % 1000 == 0:
            self.megabytes.append(memory())
        return True

    def close(self) -> None:
        """Nothing to give back."""


def main() -> None:
    """Run it and print what happened."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  what --json writes goes nowhere
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(path, 0)
        sink, classifier = Memory(), Classifier(path)
        with Camera("0", opener=lambda *_: Source()) as camera:
            loop(camera, classifier, [JsonLines(live=True), sink], most=frames)
        grown = sink.megabytes[-1] - sink.megabytes[0]
        print(f"{frames} frames: {sink.megabytes[0]:.1f} MB after 1,000, {grown:+.1f} at the end", file=sys.stderr)

        models = [Path(folder) / f"{number}.onnx" for number in range(TIMES)]
        for number, model in enumerate(models):
            write_model(model, number + 1)
        contents = [model.read_bytes() for model in models]
        contents[4::5] = [content[: len(content) // 2] for content in contents[4::5]]
        sink, stop, watcher = Memory(), threading.Event(), ModelWatcher(path, "cpu", period=0.05)

        def disturb() -> None:
            for content in contents:
                write_atomic(path, content)
                time.sleep(0.4)
            for number in range(1, TIMES + 1):
                Source.broken.set()
                while Source.opened < number:
                    time.sleep(0.1)
                time.sleep(0.2)
            stop.set()

        Source.opened = -1  # the first is not a second time
        threading.Thread(target=disturb).start()
        with Camera("0", opener=lambda *_: Source()) as camera:
            answered = loop(camera, Classifier(path), [JsonLines(live=True), sink], stop=stop, watcher=watcher)
        watcher.close()
        print(f"{answered} frames, camera opened again {Source.opened} times, {len(sink.seen)} models", file=sys.stderr)


def write_model(path: Path, number: int) -> None:
    """Write a model whose labels tell its number."""
    contract = Contract(labels=(f"yes{number}", f"no{number}"), input_size=SIZE)
    network, _ = build_network("squeezenet1_1", 2, seed=number)
    write_onnx(path, InferenceModel(network, contract), SIZE, TARGETS["desktop"])
    write_metadata(path, contract, {})


def memory() -> float:
    """Return this process's resident memory in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
