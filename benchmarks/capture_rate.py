"""Measure how many frames capture loses at 30 FPS, and how old frames are when a program reads them slowly.

    python benchmarks/capture_rate.py [SECONDS]

The synthetic camera draws a frame number into each image, which is read back from the recorded files. SECONDS is the
length of the recording (60).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import list_samples
from teachcam.collect.synthetic import read_number
from teachcam.images import read_image
from teachcam.processor import processor_name

ROOT = Path(__file__).resolve().parent.parent
FPS = 30.0


def main() -> None:
    """Run both measurements."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    measure_recording(seconds)
    measure_slow_reader(seconds / 2)


def measure_recording(seconds: float) -> None:
    """Record 720p with collect/capture.py, and count the frame numbers that are missing or there twice."""
    camera = f"synthetic:palm?seed=1&numbered=1&fps={FPS:g}&size=1280x720"
    num_frames = round(seconds * FPS)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "collect/capture.py"), "--label", "palm", "--camera", camera]
        command += ["--data", folder, "--headless", "--fps", "0", "--max-frames", str(num_frames)]
        started = time.monotonic()
        run = subprocess.run(command, text=True, capture_output=True)
        elapsed = time.monotonic() - started
        numbers = [read_number(read_image(sample.path)) for sample in list_samples(folder)]
        megabytes = sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / 2**20
    steps = np.diff(numbers)
    dropped, duplicated = int((steps - 1).clip(0).sum()), int((steps == 0).sum())
    print(
        f"recorded 1280x720 at {FPS:g} FPS: {len(numbers)} of {num_frames} frames, {dropped} dropped, {duplicated} "
        f"duplicated; {elapsed:.1f} s, {megabytes:.0f} MB; on {processor_name()}"
    )
    print(f"capture.py printed: {(run.stdout + run.stderr).strip()}")


def measure_slow_reader(seconds: float) -> None:
    """Read a frame every 200 ms, and print how old frames are and how much memory is added."""
    import resource  # POSIX only

    with Camera(f"synthetic:palm?seed=1&fps={FPS:g}&size=1280x720") as camera:
        ages, megabytes = [], []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frame = camera.read_frame()
            ages.append(time.monotonic() - frame.captured)
            megabytes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            time.sleep(0.2)
    p50, p99 = np.percentile(ages, (50, 99)) * FPS
    growth = megabytes[-1] - megabytes[len(megabytes) // 10]
    print(
        f"read every 200 ms: frame age p50 {p50:.2f}, p99 {p99:.2f} camera intervals ({len(ages)} frames); "
        f"memory grew by {growth:.1f} MB; on {processor_name()}"
    )


if __name__ == "__main__":
    main()
