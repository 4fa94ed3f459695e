"""Record 720p from a 30 FPS camera at 30 FPS for a minute, and read a camera slowly: what is lost, what is stale.

    python benchmarks/capture_rate.py [SECONDS]

The synthetic camera writes its frame counter into each picture; it is read back from the files.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import read_items
from teachcam.collect.synthetic import number_in
from teachcam.images import read_image

RATE = 30.0


def main() -> None:
    """Print both figures."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    record(seconds)
    read_slowly(seconds / 2)


def record(seconds: float) -> None:
    """Record through the command and compare the counters in the files with an unbroken count."""
    camera = f"synthetic:palm?seed=1&numbered=1&fps={RATE:g}&size=1280x720"
    with tempfile.TemporaryDirectory() as folder:
        count = round(seconds * RATE)
        command = [sys.executable, "collect/capture.py", "--label", "x", "--camera", camera, "--data", folder]
        started = time.monotonic()
        run = subprocess.run(
            [*command, "--headless", "--fps", "0", "--count", str(count)], text=True, capture_output=True
        )
        took = time.monotonic() - started
        numbers = [number_in(read_image(item.path)) for item in read_items(folder)]
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / 2**20
    steps = np.diff(numbers)
    dropped, duplicated = int((steps - 1).clip(0).sum()), int((steps == 0).sum())
    print(f"recorded 1280x720 at {RATE:g} FPS: {len(numbers)} of {count} frames, {dropped} dropped, ", end="")
    print(f"{duplicated} duplicated; {took:.1f} s, {size:.0f} MB; it says: {(run.stdout + run.stderr).strip()}")


def read_slowly(seconds: float) -> None:
    """Read with 200 ms of work a frame: the age of what is handed out, and what that does to memory."""
    with Camera(f"synthetic:palm?seed=1&fps={RATE:g}&size=1280x720") as camera:
        ages, memory = [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frame = camera.read_frame()
            ages.append(time.monotonic() - frame.captured)
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            time.sleep(0.2)
        intervals = np.percentile(ages, (50, 99)) * RATE
    print(
        f"read every 200 ms: age of the frame {intervals[0]:.2f} intervals at p50, {intervals[1]:.2f} at p99 "
        f"({len(ages)} frames); memory grew by {memory[-1] - memory[len(memory) // 10]:.1f} MB"
    )


if __name__ == "__main__":
    main()
