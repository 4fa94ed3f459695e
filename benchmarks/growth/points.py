"""One measurement each, in a process of its own: `python benchmarks/growth/points.py NAME NUMBER` prints JSON.

Only what needs PyTorch imports it: its memory would hide that of the rest.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from teachcam.collect.camera import Camera
from teachcam.collect.synthetic import render
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.sinks.base import FrameResult
from teachcam.live.web.server import Web
from teachcam.ridge import Rows
from teachcam.ridge_sums import IncrementalRidge

FPS, WARM_UP, SECONDS = 10, 3.0, 15.0  # of each camera; before the measurement; of it
IMAGES_PER_LABEL, NUM_FEATURES = 20, 1280
CLIENTS = r"""
import selectors, socket, sys, time
readers, images = selectors.DefaultSelector(), {}
for number in range(int(sys.argv[2])):
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    readers.register(client, selectors.EVENT_READ)
    images[client] = 0
begin = time.monotonic() + float(sys.argv[3])
end = begin + float(sys.argv[4])
while time.monotonic() < end:
    for key, _ in readers.select(0.1):
        content = key.fileobj.recv(1 << 20)
        if not content:
            readers.unregister(key.fileobj)
        if time.monotonic() > begin:
            images[key.fileobj] += content.count(b"\xff\xd9")  # the end of a JPEG
print(min(images.values()) / float(sys.argv[4]), sum(images.values()) / float(sys.argv[4]))
"""


def read(folder: str) -> dict:
    """Read a dataset as training does."""
    from teachcam.train.data.dataset import Dataset

    Dataset(Path(folder))
    return {}


def refit(num_labels: str) -> dict:
    """Make the head that teaching shows after one more image: sums over all images, and one more."""
    rng = np.random.default_rng(0)
    sums = IncrementalRidge(NUM_FEATURES)

    def rows(class_ids: np.ndarray) -> Rows:
        count, nobody = len(class_ids), np.full(len(class_ids), -1)
        features = rng.random((count, NUM_FEATURES), np.float32)
        return Rows(features, class_ids, np.zeros(count, int), nobody, np.zeros(count, bool))

    for label in range(int(num_labels)):
        sums.add(rows(np.full(IMAGES_PER_LABEL, label)))
    times = []
    for _ in range(3):
        started = time.monotonic()
        sums.add(rows(np.array([0])))
        sums.fit(range(int(num_labels)))
        times.append(time.monotonic() - started)
    return {"refit seconds": float(np.median(times))}


class Source:
    """A camera that delivers prepared frames, so that only what is measured takes time."""

    live, fps = True, float(FPS)
    images = render("palm", 1, 10)
    due = count = 0

    def read(self) -> np.ndarray:
        """Return the next frame when it is due."""
        self.due = max(self.due + 1 / FPS, time.monotonic() - 1 / FPS)
        time.sleep(max(0.0, self.due - time.monotonic()))
        self.count += 1
        return self.images[self.count % len(self.images)]

    def close(self) -> None:
        """Release nothing."""


class Ages:
    """A sink that stores the ages of frames, and ends the loop in time."""

    def __init__(self):
        self.ages, self.begin = [], time.monotonic() + WARM_UP

    def __call__(self, result: FrameResult) -> bool:
        """Store the age of a frame after the warm-up."""
        if time.monotonic() > self.begin:
            self.ages.append(1000 * result.age)
        return time.monotonic() < self.begin + SECONDS

    def close(self) -> None:
        """Release nothing."""


def write_model(file: str) -> dict:
    """Write the default network with a random head."""
    from teachcam.contract import Contract
    from teachcam.export.from_torch.graph import write_onnx
    from teachcam.export.metadata import write_metadata
    from teachcam.export.targets import TARGETS
    from teachcam.train.model.backbones import INPUT_SIZE, build_network
    from teachcam.train.model.inference import InferenceModel

    network, _ = build_network("efficientnet_lite0", 4)
    contract = Contract(labels=tuple("abcd"), input_size=INPUT_SIZE)
    write_onnx(Path(file), InferenceModel(network, contract), INPUT_SIZE, TARGETS["desktop"])
    write_metadata(Path(file), contract, {})
    return {}


def _make_classifier(folder: str) -> Classifier:
    """Return a classifier of `write_model`'s network."""
    file = Path(folder) / "model.onnx"
    subprocess.run([sys.executable, __file__, "write_model", str(file)], check=True, stdout=subprocess.DEVNULL)
    return Classifier(file, "cpu")


def _peak_memory_mb() -> float:
    """Return the largest resident memory of this process alone, in MB of 2**20 bytes."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def cameras(count: str) -> dict:
    """Classify the frames of several cameras in one process, each in a thread with its own loop."""
    with tempfile.TemporaryDirectory() as folder:
        classifier = _make_classifier(folder)
        opened = [Camera("0", opener=lambda *_: Source()) for _ in range(int(count))]
        sinks = [Ages() for _ in opened]
        threads = [
            threading.Thread(target=loop, args=(camera, classifier.clone_for_thread(), [sink]))
            for camera, sink in zip(opened, sinks, strict=True)
        ]
        for thread in threads:
            thread.start()
        time.sleep(WARM_UP)
        used, started = time.process_time(), time.monotonic()
        num_threads = len(psutil.Process().threads())
        for thread in threads:
            thread.join()
        used, seconds = time.process_time() - used, time.monotonic() - started
        for camera in opened:
            camera.close()
    ages = np.concatenate([sink.ages for sink in sinks])
    return {
        "frames a second of a camera": min(len(sink.ages) for sink in sinks) / SECONDS,
        "frame age p50 ms": float(np.percentile(ages, 50)),
        "frame age p99 ms": float(np.percentile(ages, 99)),
        "CPU seconds a second": used / seconds,
        "memory MB": _peak_memory_mb(),
        "threads": num_threads,
    }


def clients(count: str) -> dict:
    """Show the live page's images to several clients, which run in another process at low priority."""
    with tempfile.TemporaryDirectory() as folder, Camera("0", opener=lambda *_: Source()) as camera:
        classifier = _make_classifier(folder)
        web, sink = Web("127.0.0.1", 0, list("abcd"), camera), Ages()
        port = web.url.split(":")[2].strip("/")
        command = [sys.executable, "-c", CLIENTS, port, count, str(WARM_UP), str(SECONDS - 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.nice(10)) as process:
            started, used = time.monotonic(), time.process_time()
            loop(camera, classifier, [web, sink])
            used, seconds = time.process_time() - used, time.monotonic() - started
            lowest, total = map(float, process.stdout.read().split())
    return {
        "images a second of a client": lowest,
        "images a second in all": total,
        "frame age p50 ms": float(np.percentile(sink.ages, 50)),
        "frame age p99 ms": float(np.percentile(sink.ages, 99)),
        "CPU seconds a second": used / seconds,
        "memory MB": _peak_memory_mb(),
    }


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    points = {point.__name__: point for point in (read, refit, cameras, clients, write_model)}
    print(json.dumps(points[sys.argv[1]](sys.argv[2])))
