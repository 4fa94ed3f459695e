"""Shared by the peers' scripts: read the job, do it, and write what was measured.

    python SCRIPT JOB.json

A job is a JSON object that benchmarks/peers/measure.py writes. Its `mode` says what to do:

    train   train on the images of a folder, and write the probabilities of test images
    loop    open what was trained, classify one image, print its label, then measure the time of each further image
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True)
class Job:
    """What a peer is told."""

    mode: str  # train or loop
    started: float  # when the process was started, seconds since 1970
    results: str  # the JSON file to write
    model: str  # the folder for what is trained
    labels: list[str]  # in the order of the probabilities
    options: dict  # of the peer
    weights: str  # the folder with ImageNet weights
    device: str = "cpu"  # or cuda: what to train on
    seed: int = 0
    quick: bool = False  # train for the shortest time that shows that it works
    train: str = ""  # the folder of training images, LABEL/SESSION_NUMBER.jpg
    test: tuple[str, ...] = ()  # files of test images
    clip: str = ""  # a video of 640x480 pixels
    image: str = ""  # one of its frames
    num_images: int = 0  # to time in a loop
    num_warm_up: int = 0  # images before these, which do not count


def run(train: Callable[[Job], dict] | None, loop: Callable[[Job], Iterator[tuple[str, float | None]]]) -> None:
    """Do the job that the command line names.

    Args:
        train: Trains, and returns the columns of its row. `probabilities` is one of them, a list [N][num_classes].
        loop: Yields the label of each image, endlessly, and the seconds that it took.
    """
    values = json.loads(Path(sys.argv[1]).read_text())
    job = Job(**{field.name: values[field.name] for field in fields(Job) if field.name in values})
    if job.mode == "train":
        assert train is not None, "this peer can't be trained"
        results = train(job)
    else:
        results = {"latencies": _time_images(job, loop(job)), "memory_mb": peak_memory_mb()}
    Path(job.results).write_text(json.dumps(results))


def _time_images(job: Job, answers: Iterator[tuple[str, float]]) -> list[float]:
    """Print the first label, whose time the parent measures, and return the seconds of each image."""
    label, _ = next(answers)
    print(f"label {label}", flush=True)
    for _ in range(job.num_warm_up):
        next(answers)
    return [next(answers)[1] for _ in range(job.num_images)]


def repeat(classify: Callable, image: object) -> Iterator[tuple[str, float]]:
    """Classify the same image endlessly. Yields its label and the seconds of each call."""
    while True:
        started = time.perf_counter()
        label = classify(image)
        yield label, time.perf_counter() - started


def training_cost(job: Job) -> dict[str, float]:
    """Return what was spent since the start of the process: wall seconds, CPU seconds, and memory."""
    times = os.times()
    return {
        "seconds": time.time() - job.started,
        "cpu_seconds": times.user + times.system + times.children_user + times.children_system,
        "memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of this process, or of a child that has ended, in MB of 2**20 bytes."""
    status = Path("/proc/self/status")
    if resource is None or not status.is_file():
        return None
    # Not RUSAGE_SELF: a process inherits the peak of the one that started it.
    kilobytes = int(status.read_text().split("VmHWM:")[1].split()[0])
    return max(kilobytes, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def size_mb(*paths: Path | str) -> float:
    """Return the size of files in MB of 2**20 bytes."""
    return sum(Path(path).stat().st_size for path in paths) / 2**20
