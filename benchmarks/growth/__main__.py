"""Measure how cost grows with images, labels, sessions, cameras and clients of the page.

    python benchmarks/growth                                          # all: more than an hour on two cores
    python benchmarks/growth --parts images labels --sizes 100 1000   # a part
    python benchmarks/growth --report                                 # only write the tables again

Every point is a process of its own: its seconds, its CPU seconds and its largest resident memory are the system's
figures for that process. A process starts with the peak memory of the program that started it, here 92 MB, so less
can't be seen. Results are kept in benchmarks/growth/results.json; a new one replaces the one of the same point. The
tables go into benchmarks/GROWTH.md.

The exponent is the slope of a straight line through the points of the largest ten-fold range, both axes logarithmic.
1 is linear growth, and less means that a fixed cost is part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pool import FOLDER, by_images, by_labels, by_sessions

from teachcam.processor import processor_name

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks/growth/results.json", ROOT / "benchmarks/GROWTH.md"
RUNS = FOLDER / "runs"
SIZES = {
    "images": (100, 300, 1000, 3000, 10_000, 30_000, 100_000),
    "labels": (2, 10, 30, 100, 300, 1000),
    "sessions": (1, 4, 40, 100, 400, 1000),
    "cameras": (1, 2, 4, 8),
    "clients": (1, 10, 50, 100, 200),
}
NUM_IMAGES = {"labels": 10_000, "sessions": 5_000}
DATASETS = {"labels": by_labels, "sessions": by_sessions}
MAX_FOR_VIEWS = 3000  # images: with augmented views, training takes three to five times as long
COST = ("seconds", "CPU seconds", "memory MB")
SHORT = {"seconds": "s", "CPU seconds": "CPU s", "memory MB": "MB", "CPU seconds a second": "CPU s/s"}
CHECK, TRAIN, POINTS = "collect/check.py", "train/finetune.py", "benchmarks/growth/points.py"


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, help="in place of the usual ones, for every part")
    parser.add_argument("--images", type=int, help="for labels and sessions, in place of the usual number")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    num_cores = len(os.sched_getaffinity(0))  # fewer than the machine has, with `taskset`
    machine = f"{processor_name()}, cores: {num_cores}"
    for part in [] if options.report else options.parts:
        if results.get(part, {}).get("machine") != machine:  # figures of two machines do not make a curve
            results[part] = {"machine": machine, "tasks": {}}
        num_images = options.images or NUM_IMAGES.get(part, 0)
        if part in DATASETS:
            run(*training(by_sessions(4, num_images)), "--augment", "none")  # computes the features
        for size in options.sizes or SIZES[part]:
            for task, cost in measure(part, size, num_images):
                cost = {name: round(value, 3) for name, value in cost.items()}
                print(f"{part} {size}: {task}: {cost}", flush=True)
                results[part]["tasks"].setdefault(task, {})[str(size)] = cost
                RESULTS.write_text(json.dumps(results, indent=1))
    report(results)


def measure(part: str, size: int, num_images: int) -> Iterator[tuple[str, dict]]:
    """Yield the costs of each task for one size. Datasets of `labels` and `sessions` have so many images."""
    if part in ("cameras", "clients"):
        yield part, run(POINTS, part, str(size))
        return
    data = by_images(size) if part == "images" else DATASETS[part](size, num_images)
    train = training(data)
    yield "check", run(CHECK, "--data", str(data))
    if part == "images":
        shutil.rmtree(RUNS, ignore_errors=True)
        yield "read", run(POINTS, "read", str(data))
        yield "train", run(*train, "--augment", "none")
        yield "train again", run(*train, "--augment", "none")
        if size <= MAX_FOR_VIEWS:
            yield "train with views", run(*train)
    else:  # the features are known, and what is left is what labels and sessions cost
        yield "train again", run(*train, "--augment", "none")
    if part == "labels":
        yield "refit", run(POINTS, "refit", str(size))
    shutil.rmtree(data)


def training(data: Path) -> list[str]:
    """Return the command that trains on a dataset."""
    return [TRAIN, "--data", str(data), "--strategy", "ridge", "--device", "cpu", "--out", str(RUNS / data.name)]


def run(*command: str) -> dict:
    """Run a Python program, and return what it cost and the JSON of its last line."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        lines, messages = output.read().decode().splitlines(), errors.read().decode(errors="replace")
    is_warned = command[0] == CHECK and process.returncode == 2
    if process.returncode and not is_warned:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{messages[-2000:]}")
    cost = (seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    return {**dict(zip(COST, cost, strict=True)), **(json.loads(lines[-1]) if command[0] == POINTS else {})}


def exponent(costs: dict[str, dict], name: str) -> float:
    """Return the slope of a cost over the sizes of the largest ten-fold range, both logarithmic; NaN for one size."""
    points = [(int(size), cost[name]) for size, cost in costs.items()]
    largest = max(size for size, _ in points)
    sizes, values = np.log([point for point in points if point[0] >= largest / 10 and point[1] > 0]).T
    return round(float(np.polyfit(sizes, values, 1)[0]), 2) + 0 if len(sizes) > 1 else float("nan")  # + 0: no "-0.00"


def report(results: dict) -> None:
    """Write a table for each part that was measured."""
    text = ["# Growth", "", "Written by `python benchmarks/growth`: do not edit. Each point was measured once."]
    for part in (part for part in SIZES if part in results):
        measured = results[part]["tasks"]
        tasks = {task: dict(sorted(costs.items(), key=lambda cost: int(cost[0]))) for task, costs in measured.items()}
        text += ["", f"**By {part}** ({results[part]['machine']})"]
        columns = {task: columns_of(part, costs) for task, costs in tasks.items()}
        text += [
            "",
            "| "
            + " | ".join(
                [
                    part,
                    *(
                        f"{task}: {' / '.join(SHORT.get(name, name) for name in names)}"
                        for task, names in columns.items()
                    ),
                ]
            )
            + " |",
        ]
        text.append("|--:" * (1 + len(tasks)) + "|")
        for size in sorted({int(size) for costs in tasks.values() for size in costs}):
            costs = [(tasks[task].get(str(size), {}), names) for task, names in columns.items()]
            cells = [" / ".join(f"{readable(cost[name])}" for name in names if cost) for cost, names in costs]
            text.append("| " + " | ".join([f"{size:,}", *cells]) + " |")
        cells = [" / ".join(f"{exponent(tasks[task], name):.2f}" for name in names) for task, names in columns.items()]
        text.append("| " + " | ".join(["exponent", *cells]) + " |")
    print("\n".join(text))
    PAGE.write_text("\n".join(text) + "\n")


def readable(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def columns_of(part: str, costs: dict[str, dict]) -> list[str]:
    """Return the names of a task's costs that say something: cameras and clients run for a fixed time."""
    names = list(next(iter(costs.values())))
    return names if part not in ("cameras", "clients") else [name for name in names if name not in COST[:2]]


if __name__ == "__main__":
    main()
