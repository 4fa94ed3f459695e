"""Measure how fast a model runs on this device, and print a table to send in.

    python live/bench.py
    python live/bench.py --model model.onnx --data data --camera csi:0

The model is tuned first, see `--tune` of live/run.py. Each precision and execution provider then has its best number of
threads. FPS and power are measured as fast as the model runs; latency and age at the camera's rate, 30 a second by
default. Latency is the time from having a frame to its label, age the time from the frame's capture to its label.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("bench")

import argparse
import logging
import platform
import threading
import time
from pathlib import Path
from typing import Iterator, NamedTuple

import cv2
import numpy as np
import onnxruntime

from teachcam import cli
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.files import expand
from teachcam.live.board import find_board, power_mode, read_watts
from teachcam.live.classifier import Classifier
from teachcam.live.loop import loop
from teachcam.live.model_watcher import find_model
from teachcam.live.sinks.base import FrameResult
from teachcam.live.tuning import Timing, measure, read_tuning, tuned_file
from teachcam.processor import processor_name

POWER_INTERVAL = 0.1  # seconds between two readings; Jetsons update them about as often
WARM_UP = 20  # frames

# Frames per second with TensorRT in fp16, of NVIDIA's torch2trt (its README on GitHub): on a Nano, and on a Xavier.
TORCH2TRT = {"alexnet": (69.9, 580), "squeezenet1_0": (137, 890), "squeezenet1_1": (248, 1390), "resnet18": (90.2, 712)}

logger = logging.getLogger("teachcam.live.bench")


class Row(NamedTuple):
    """The measurements of one precision and provider."""

    timing: Timing
    megabytes: float  # of the file
    fps: float
    watts: float | None
    latencies: list[float]  # milliseconds
    ages: list[float]


class LoopTimes:
    """A sink that keeps the times of the live loop, and ends it after some seconds."""

    def __init__(self, seconds: float):
        """Begin now."""
        self.latencies: list[float] = []  # milliseconds
        self.ages: list[float] = []
        self._end = time.monotonic() + seconds

    def __call__(self, result: FrameResult) -> bool:
        """Keep the times of a frame. Return False at the end."""
        self.latencies.append(1000 * result.latency)
        self.ages.append(1000 * result.age)
        return time.monotonic() < self._end

    def close(self) -> None:
        """Do nothing."""


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table as Markdown. Return the exit code."""
    options = _parse(argv)
    path = find_model(options.model)
    tuning = read_tuning(path) or measure(path, "probabilities", options.data)
    rows = []
    for timing in tuning.best_threads:
        if tuned_file(path, timing.precision).is_file():
            rows.append(_measure(path, timing, options))
    for line in _describe(path, rows, options):
        print(line)
    return 0


def _measure(path: Path, timing: Timing, options: argparse.Namespace) -> Row:
    logger.info(f"measuring {timing.describe()}")
    file = tuned_file(path, timing.precision)
    classifier = Classifier(file, timing.provider, timing.threads or None)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    for _ in range(WARM_UP):
        classifier.classify(image)
    watts, stop = [], threading.Event()

    def read_power() -> None:
        while not stop.wait(POWER_INTERVAL):
            watts.append(read_watts(options.root))

    reader = threading.Thread(target=read_power)
    reader.start()
    num_images, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds:
        classifier.classify(image)
        num_images += 1
    fps = num_images / (time.perf_counter() - started)
    stop.set()
    reader.join()
    measured = [value for value in watts if value is not None]
    with open_camera(options) as camera:
        times = LoopTimes(options.seconds)
        loop(camera, classifier, [times])
    power = float(np.mean(measured)) if measured else None
    return Row(timing, file.stat().st_size / 1e6, fps, power, times.latencies[WARM_UP:], times.ages[WARM_UP:])


def _describe(path: Path, rows: list[Row], options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    board = find_board(options.root)
    classifier = Classifier(path, "cpu")
    backbone = classifier.contract.trained_on.backbone or "network"
    height, width = classifier.contract.input_size
    yield f"- board: {board.name}, {processor_name()}"
    if board.jetpack:
        yield f"- JetPack: {board.jetpack}, power mode {power_mode() or 'unknown'}"
    versions = f"Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, OpenCV {cv2.__version__}"
    yield f"- versions: {versions}"
    yield f"- model: {backbone}, {width}x{height}, {len(classifier.contract.labels)} labels; camera {options.camera}"
    yield ""
    yield (
        "| precision | size | provider | threads | FPS | latency p50 / p99 | age p50 / p99 | beside busy programs "
        "| power | energy an image |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        timing = row.timing
        latency, age = (
            f"{np.percentile(times, 50):.1f} / {np.percentile(times, 99):.1f} ms" if times else "-"
            for times in (row.latencies, row.ages)
        )
        power = "not measured by this board | -"
        if row.watts is not None:
            power = f"{row.watts:.1f} W | {1000 * row.watts / row.fps:.0f} mJ"
        yield (
            f"| {timing.precision} | {row.megabytes:.1f} MB | {timing.provider} | {timing.threads or '-'} "
            f"| {row.fps:.0f} | {latency} | {age} | {timing.loaded_ms:.1f} ms | {power} |"
        )
    if backbone in TORCH2TRT:
        nano, xavier = TORCH2TRT[backbone]
        yield ""
        yield f"torch2trt's figures for {backbone} with TensorRT in fp16: {nano} FPS on a Nano, {xavier} on a Xavier."


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add_camera_arguments(parser, default="synthetic")
    add = parser.add_argument
    add("--model", type=expand, metavar="FILE", help="an ONNX file or a checkpoint (default: the newest run's)")
    add(
        "--data",
        type=expand,
        default=Path("data"),
        metavar="DIR",
        help="a dataset with the model's labels, to try int8 and, on a GPU, fp16 (default: %(default)s)",
    )
    add("--seconds", type=cli.positive_int, default=10, help="seconds for each measurement (default: %(default)s)")
    add("--root", type=expand, default=Path("/"), help=argparse.SUPPRESS)  # tests put the files of a Jetson here
    return parser.parse_args(argv)
