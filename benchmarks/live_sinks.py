"""What bad sinks do to the live loop, and how old a frame is at its answer.

    python benchmarks/live_sinks.py

The loop answers 480x640 frames at 30 FPS (SqueezeNet 1.1, random weights). A block with a bad sink follows one without
any; what is compared is the time from a frame's capture until the loop is ready for the next, its p90 and p99. The
medians of all pairs are told; the row `nothing` is what the machine's noise makes of a ratio of 1. The page's clients
are a process of their own, with less priority: in truth they are other machines.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.export.graph import write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.targets import TARGETS
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.sinks import video
from teachcam.live.sinks.base import Result
from teachcam.live.sinks.text import JsonLines
from teachcam.live.sinks.video import Video
from teachcam.live.web.server import Web
from teachcam.train.model.backbones import INPUT_SIZE, build_network
from teachcam.train.model.inference import InferenceModel

PAIRS, FRAMES, FPS = 9, 150, 30
SKIPPED = 20  # frames at the start of a block: what was attached before is still on its way out
PICTURES = render("palm", 1, 30)
CLIENTS = r"""
import selectors, socket, sys
clients, readers = [], selectors.DefaultSelector()
for number in range(50):
    clients.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    path = b"/stream" if number % 2 else b"/events"
    clients[-1].sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    if number >= 10:  # the first ten never read
        readers.register(clients[-1], selectors.EVENT_READ)
print(flush=True)
while True:
    for key, _ in readers.select():
        key.fileobj.recv(1 << 20)
"""


class Source:
    """A camera that gives a frame at its rate."""

    live, fps = True, float(FPS)
    due = count = 0

    def read(self) -> np.ndarray:
        """Return the next frame when it is due."""
        self.due = max(self.due + 1 / FPS, time.monotonic() - 1 / FPS)
        time.sleep(max(0.0, self.due - time.monotonic()))
        self.count += 1
        return PICTURES[self.count % len(PICTURES)]

    def close(self) -> None:
        """Nothing to give back."""


class Times:
    """The last sink: notes when all had a frame's answer, how old it was then, and its model's time. Milliseconds."""

    def __init__(self):
        self.until_ready, self.ages, self.latencies = [], [], []

    def __call__(self, result: Result) -> bool:
        """Note it."""
        self.until_ready.append(1000 * (time.monotonic() - result.frame.captured))
        self.ages.append(1000 * result.age)
        self.latencies.append(1000 * result.latency)
        return True

    def close(self) -> None:
        """Nothing to give back."""


@contextlib.contextmanager
def nothing(folder: Path, camera: Camera) -> Iterator[Times]:
    """Attach what harms nobody."""
    yield Times()


@contextlib.contextmanager
def page(folder: Path, camera: Camera) -> Iterator[Web]:
    """Serve the page to 50 clients, of which 10 never read."""
    web = Web("127.0.0.1", 0, ["a", "b"], camera)
    command = ["chrt", "--idle", "0", sys.executable, "-c", CLIENTS, web.url.split(":")[2].strip("/")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as clients:
        clients.stdout.readline()
        yield web
        clients.kill()


@contextlib.contextmanager
def full_disk(folder: Path, camera: Camera) -> Iterator[Video]:
    """Record to a disk on which less is free than has to be."""
    kept, video.KEPT_FREE = video.KEPT_FREE, 1 << 60
    yield Video(folder / f"{time.monotonic_ns()}.mp4", FPS, live=True)
    video.KEPT_FREE = kept


@contextlib.contextmanager
def closed_pipe(folder: Path, camera: Camera) -> Iterator[JsonLines]:
    """Write JSON lines into a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as gone:
        with contextlib.redirect_stdout(gone):
            sink = JsonLines(live=True)
        yield sink


def main() -> None:
    """Print the ages, and a row a bad sink."""
    with tempfile.TemporaryDirectory() as name, Camera("0", opener=lambda *_: Source()) as camera:
        folder = Path(name)
        contract = Contract(labels=("a", "b"), input_size=INPUT_SIZE)
        network, _ = build_network("squeezenet1_1", 2)
        write_onnx(folder / "model.onnx", InferenceModel(network, contract), INPUT_SIZE, TARGETS["desktop"])
        write_metadata(folder / "model.onnx", contract, {})
        classifier = Classifier(folder / "model.onnx", "cpu")

        def block(*sinks: object, frames: int = FRAMES) -> Times:
            times = Times()
            with contextlib.redirect_stderr(io.StringIO()):
                loop(camera, classifier, [*sinks, times], most=frames)
            return times

        for sink in (nothing, page, full_disk, closed_pipe):
            pairs = []
            for _ in range(PAIRS):
                without = np.percentile(block().until_ready[SKIPPED:], (90, 99))
                with sink(folder, camera) as bad:
                    pairs.append((without, np.percentile(block(bad).until_ready[SKIPPED:], (90, 99))))
            for index, name in enumerate(("p90", "p99")):
                without, bad = np.array(pairs)[:, :, index].T
                print(
                    f"{sink.__name__:<12} {name} without {np.median(without):.2f} ms, with {np.median(bad):.2f} ms, "
                    f"ratio {np.median(bad / without):.2f}",
                    flush=True,
                )

        quick = classifier.classify
        classifier.classify = lambda image: time.sleep(10 / FPS) or quick(image)
        times = block(frames=100)
        print(
            f"a model of ten camera intervals: frame age p50 {np.percentile(times.ages, 50):.1f} ms, p99 "
            f"{np.percentile(times.ages, 99):.1f} ms; the model's own p99 and one interval: "
            f"{np.percentile(times.latencies, 99) + 1000 / FPS:.1f} ms"
        )


if __name__ == "__main__":
    main()
