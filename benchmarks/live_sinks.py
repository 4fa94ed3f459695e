"""What bad sinks do to the live loop, and how old a frame is at its answer.

    python benchmarks/live_sinks.py

The loop answers 480x640 frames at 30 FPS (SqueezeNet 1.1, random weights). A block with a bad sink follows one without
any; what is compared is the p99 of the time from a frame's capture until the loop is ready for the next. The medians
of all pairs are told. The page's clients are a process of their own, which waits: what they cost is not the loop's.
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

from collect.camera import Camera
from collect.synthetic import render
from export.graph import write_onnx
from export.metadata import write_metadata
from export.targets import TARGETS
from live import sinks as live_sinks
from live.classifier import Classifier
from live.loop import loop
from live.sinks import JsonLines, Result, Video
from live.web import Web
from train.backbones import INPUT_SIZE, Deployed, build_network
from train.contract import Contract

PAIRS, FRAMES, FPS = 9, 200, 30
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

    def __init__(self):
        self._due, self._count = time.monotonic(), 0

    def read(self) -> np.ndarray:
        """Return the next frame when it is due."""
        self._due += 1 / FPS
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._count += 1
        return PICTURES[self._count % len(PICTURES)]

    def close(self) -> None:
        """Nothing to give back."""


class Times:
    """The last sink: notes how old each frame was at its answer, and when all had it. Milliseconds."""

    def __init__(self):
        self.ages: list[float] = []
        self.until_ready: list[float] = []

    def __call__(self, result: Result) -> bool:
        """Note it."""
        self.ages.append(1000 * result.age)
        self.until_ready.append(1000 * (time.monotonic() - result.frame.captured))
        return True

    def close(self) -> None:
        """Nothing to give back."""


@contextlib.contextmanager
def page(folder: Path, camera: Camera) -> Iterator[Web]:
    """Serve the page to 50 clients, of which 10 never read."""
    web = Web("127.0.0.1", 0, ["a", "b"], camera)
    command = [sys.executable, "-c", CLIENTS, web.url.split(":")[2].strip("/")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as clients:
        clients.stdout.readline()
        yield web
        clients.kill()


@contextlib.contextmanager
def full_disk(folder: Path, camera: Camera) -> Iterator[Video]:
    """Record to a disk on which less is free than has to be."""
    kept, live_sinks.KEPT_FREE = live_sinks.KEPT_FREE, 1 << 60
    yield Video(folder / f"{time.monotonic_ns()}.mp4", FPS, live=True)
    live_sinks.KEPT_FREE = kept


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
        write_onnx(folder / "model.onnx", Deployed(network, contract), INPUT_SIZE, TARGETS["desktop"])
        write_metadata(folder / "model.onnx", contract, {})
        classifier = Classifier(folder / "model.onnx", "cpu")

        def block(*sinks: object, frames: int = FRAMES) -> Times:
            times = Times()
            with contextlib.redirect_stderr(io.StringIO()):
                loop(camera, classifier, [*sinks, times], most=frames)
            return times

        for sink in (page, full_disk, closed_pipe):
            pairs = []
            for _ in range(PAIRS):
                without = np.percentile(block().until_ready, 99)
                with sink(folder, camera) as bad:
                    pairs.append((without, np.percentile(block(bad).until_ready, 99)))
            without, bad = np.median(pairs, axis=0)
            ratio = np.median([b / a for a, b in pairs])
            print(f"{sink.__name__:<12} p99 without {without:.2f} ms, with {bad:.2f} ms, ratio {ratio:.2f}", flush=True)

        quick, own = classifier.classify, []

        def slow(image: np.ndarray):
            started = time.monotonic()
            time.sleep(10 / FPS)
            answer = quick(image)
            own.append(1000 * (time.monotonic() - started))
            return answer

        classifier.classify = slow
        ages = block(frames=100).ages
        print(
            f"a model of ten camera intervals ({np.median(own):.1f} ms): age p50 {np.percentile(ages, 50):.1f} ms, "
            f"p99 {np.percentile(ages, 99):.1f} ms; an interval more than its p99 is "
            f"{np.percentile(own, 99) + 1000 / FPS:.1f} ms"
        )


if __name__ == "__main__":
    main()
