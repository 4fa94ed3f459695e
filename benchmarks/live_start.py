"""Measure the time from the start of live/run.py to its first label, and compare it with `import torch` alone.

    python benchmarks/live_start.py MODEL CLIP

MODEL is an ONNX file and CLIP a video. Both programs start anew each time and take turns, so that both suffer alike
if the machine's speed changes. The files that they read are in the disk cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from teachcam.processor import processor_name

NUM_STARTS = 11
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print the median of both times, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="an ONNX file of export/to_onnx.py")
    parser.add_argument("clip", help="a video")
    options = parser.parse_args()
    live = [str(ROOT / "live/run.py"), "--model", options.model, "--camera", options.clip, "--headless", "--json"]
    commands = {"import torch": ["-c", "import torch; print(flush=True)"], "first label": live}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for start in range(NUM_STARTS + 1):
        for name, command in commands.items():
            seconds = seconds_to_first_line(command)
            if start > 0:  # the first start fills the disk cache
                times[name].append(seconds)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"{name}: median {median:.3f} s of {NUM_STARTS} starts ({min(seconds):.3f} to {max(seconds):.3f}), "
            f"on {processor_name()}"
        )
    ratio = statistics.median(
        label / torch for torch, label in zip(times["import torch"], times["first label"], strict=True)
    )
    print(f"first label / import torch: {ratio:.2f}, on {processor_name()}")


def seconds_to_first_line(command: list[str]) -> float:
    """Return the seconds from the start of a Python process to the first line on its stdout."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if not process.stdout.readline():
            raise SystemExit(f"this command printed nothing: {command}")
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


if __name__ == "__main__":
    main()
