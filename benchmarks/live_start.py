"""From process start to the first label on stdout, against `import torch` alone.

    python benchmarks/live_start.py MODEL.onnx CLIP

Fresh processes, in turn, so that a machine whose speed drifts treats both alike; what both read is in the disk's cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

TIMES = 11
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("clip")
    options = parser.parse_args()
    live = [str(ROOT / "live/run.py"), "--model", options.model, "--camera", options.clip, "--headless", "--json"]
    commands = {
        "import torch": ["-c", "import torch; print(flush=True)"],
        "first label": live,
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(TIMES + 1):
        for name, command in commands.items():
            times[name].append(until_first_line(command))
    for name, seconds in times.items():
        del seconds[0]
        print(
            f"{name}: median {statistics.median(seconds):.3f} s of {TIMES} ({min(seconds):.3f} to {max(seconds):.3f})"
        )
    ratio = statistics.median(label / torch for torch, label in zip(*times.values(), strict=True))
    print(f"first label / import torch: {ratio:.2f}")


def until_first_line(command: list[str]) -> float:
    """Return the seconds from the start of a Python process to the first line on its stdout."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if not process.stdout.readline():
            raise SystemExit(f"nothing came from {command}")
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


if __name__ == "__main__":
    main()
