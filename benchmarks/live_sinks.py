"""Measure how much slow or failing sinks delay the live loop, and how old a frame is when it is classified.

    python benchmarks/live_sinks.py
    python benchmarks/live_sinks.py no_sink silent_broker     # these alone

The loop classifies 480x640 images at 30 FPS with SqueezeNet 1.1 and random weights. Blocks without and with a bad sink
alternate. Compared are p90 and p99 of the time from a frame's capture until the loop is ready for the next frame, as
medians of all pairs. The row `no_sink` shows the noise of the machine: its ratio should be 1.

The clients of the page run as a process with low priority, because they would be other machines.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.synthetic import render
from teachcam.contract import Contract
from teachcam.export.from_torch.graph import write_onnx
from teachcam.export.metadata import write_metadata
from teachcam.export.targets import TARGETS
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.sinks import video
from teachcam.live.sinks.base import FrameResult, ThreadedSink
from teachcam.live.sinks.mqtt import Mqtt
from teachcam.live.sinks.mqtt_address import broker_address
from teachcam.live.sinks.text import JsonLines
from teachcam.live.sinks.video import Video
from teachcam.live.sinks.webhook import Webhook
from teachcam.live.web.server import Web
from teachcam.processor import processor_name
from teachcam.train.model.backbones import INPUT_SIZE, build_network
from teachcam.train.model.inference import InferenceModel

NUM_PAIRS, FRAMES_PER_BLOCK, FPS = 9, 150, 30
WARM_UP = 20  # frames at the start of a block that do not count: the sink of the block before is still closing
IMAGES = render("palm", 1, 30)
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
    """A camera that delivers frames at 30 FPS."""

    live, fps = True, float(FPS)
    due = count = 0

    def read(self) -> np.ndarray:
        """Return the next frame when it is due."""
        self.due = max(self.due + 1 / FPS, time.monotonic() - 1 / FPS)
        time.sleep(max(0.0, self.due - time.monotonic()))
        self.count += 1
        return IMAGES[self.count % len(IMAGES)]

    def close(self) -> None:
        """Release nothing."""


class Times:
    """The last sink: stores milliseconds until all sinks were called, the frames' ages, and the latencies."""

    def __init__(self):
        self.until_ready, self.ages, self.latencies = [], [], []

    def __call__(self, result: FrameResult) -> bool:
        """Store the times of one frame."""
        self.until_ready.append(1000 * (time.monotonic() - result.frame.captured))
        self.ages.append(1000 * result.age)
        self.latencies.append(1000 * result.latency)
        return True

    def close(self) -> None:
        """Release nothing."""


@contextlib.contextmanager
def no_sink(folder: Path, camera: Camera) -> Iterator[Times]:
    """Attach a sink that does nothing bad."""
    yield Times()


@contextlib.contextmanager
def page(folder: Path, camera: Camera) -> Iterator[Web]:
    """Serve the page to 50 clients, of which 10 never read what they are sent."""
    web = Web("127.0.0.1", 0, ["a", "b"], camera)
    command = ["chrt", "--idle", "0", sys.executable, "-c", CLIENTS, web.url.split(":")[2].strip("/")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as clients:
        clients.stdout.readline()
        yield web
        clients.kill()


@contextlib.contextmanager
def full_disk(folder: Path, camera: Camera) -> Iterator[Video]:
    """Record to a disk that is too full."""
    previous, video.MIN_FREE_BYTES = video.MIN_FREE_BYTES, 1 << 60
    yield Video(folder / f"{time.monotonic_ns()}.mp4", FPS, live=True)
    video.MIN_FREE_BYTES = previous


@contextlib.contextmanager
def closed_pipe(folder: Path, camera: Camera) -> Iterator[JsonLines]:
    """Write JSON lines into a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
        with contextlib.redirect_stdout(pipe):
            sink = JsonLines(live=True)
        yield sink


class EachFrame:
    """Passes each result on with a label of its own, so that a sink that writes changes has to write every frame."""

    def __init__(self, sink: ThreadedSink):
        self._sink = sink

    def __call__(self, result: FrameResult) -> bool:
        """Pass one result on."""
        prediction = result.prediction._replace(label=str(result.frame.number))
        return self._sink(replace(result, prediction=prediction))

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()


@contextlib.contextmanager
def silent_broker(folder: Path, camera: Camera) -> Iterator[EachFrame]:
    """Publish to an MQTT broker that accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield EachFrame(Mqtt(broker_address(f"mqtt://127.0.0.1:{listener.getsockname()[1]}/benchmark")))


@contextlib.contextmanager
def silent_receiver(folder: Path, camera: Camera) -> Iterator[EachFrame]:
    """Post every frame's picture to a web address that accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield EachFrame(Webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/", live=True, image=True))


SINKS = (no_sink, page, full_disk, closed_pipe, silent_broker, silent_receiver)


def main() -> None:
    """Print two rows for each sink, and the age of frames with a slow model."""
    chosen = [sink for sink in SINKS if sink.__name__ in sys.argv[1:]] or SINKS
    with tempfile.TemporaryDirectory() as name, Camera("0", opener=lambda *_: Source()) as camera:
        folder = Path(name)
        contract = Contract(labels=("a", "b"), input_size=INPUT_SIZE)
        network, _ = build_network("squeezenet1_1", 2)
        write_onnx(folder / "model.onnx", InferenceModel(network, contract), INPUT_SIZE, TARGETS["desktop"])
        write_metadata(folder / "model.onnx", contract, {})
        classifier = Classifier(folder / "model.onnx", "cpu")

        def run_block(*sinks: object, num_frames: int = FRAMES_PER_BLOCK) -> Times:
            times = Times()
            with contextlib.redirect_stderr(io.StringIO()):
                loop(camera, classifier, [*sinks, times], max_frames=num_frames)
            return times

        for sink in chosen:
            pairs = []
            for _ in range(NUM_PAIRS):
                without = np.percentile(run_block().until_ready[WARM_UP:], (90, 99))
                with contextlib.redirect_stderr(io.StringIO()), sink(folder, camera) as bad:
                    pairs.append((without, np.percentile(run_block(bad).until_ready[WARM_UP:], (90, 99))))
            for index, name in enumerate(("p90", "p99")):
                without, bad = np.array(pairs)[:, :, index].T
                print(
                    f"{sink.__name__:<15} {name} without {np.median(without):.2f} ms, with {np.median(bad):.2f} ms, "
                    f"ratio {np.median(bad / without):.2f}, on {processor_name()}",
                    flush=True,
                )

        classify = classifier.classify
        classifier.classify = lambda image: time.sleep(10 / FPS) or classify(image)
        times = run_block(num_frames=100)
        print(
            f"a model that takes ten camera intervals: frame age p50 {np.percentile(times.ages, 50):.1f} ms, p99 "
            f"{np.percentile(times.ages, 99):.1f} ms; p99 of the latency plus one interval "
            f"{np.percentile(times.latencies, 99) + 1000 / FPS:.1f} ms; on {processor_name()}"
        )


if __name__ == "__main__":
    main()
