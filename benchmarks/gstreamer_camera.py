"""Measure a GStreamer camera: its rate, the age of its frames, and the processor time that an image costs.

    python benchmarks/gstreamer_camera.py              # gst-launch-1.0, images through a pipe
    /usr/bin/python3 benchmarks/gstreamer_camera.py --opencv      # an OpenCV that has GStreamer

The test picture moves by 8 pixels with each frame, so its place tells its number. The age is counted from the youngest
frame of the run.
"""

from __future__ import annotations

import argparse
import resource

import numpy as np

from teachcam.collect import gstreamer
from teachcam.collect.camera import Camera
from teachcam.processor import processor_name

FPS, SECONDS = 30, 20
STEP = 8  # pixels
PIPELINE = (
    f"gst:videotestsrc is-live=true horizontal-speed={STEP} ! video/x-raw,width=1280,height=720,framerate={FPS}/1 ! "
    "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--opencv", action="store_true", help="let OpenCV run the pipeline")
    if parser.parse_args().opencv:
        gstreamer._has_program = lambda: False
    rows, arrivals = [], []
    started = _processor_seconds()
    with Camera(PIPELINE) as camera:
        for _ in range(FPS * SECONDS):
            frame = camera.read_frame()
            rows.append(frame.image[0].astype(int))
            arrivals.append(frame.captured)
    cost = (_processor_seconds() - started) / (FPS * SECONDS)
    turned = np.array([np.roll(rows[0], -STEP * number, axis=0) for number in range(1280 // STEP)])
    places = [int(np.abs(turned - row).sum((1, 2)).argmin()) for row in rows]
    numbers = np.concatenate([[0], np.cumsum(np.diff(places) % (1280 // STEP))])
    ages = np.array(arrivals) - numbers / FPS
    ages -= ages.min()
    print(f"{len(rows) / (arrivals[-1] - arrivals[0]):.1f} FPS of {FPS}, {numbers[-1] + 1 - len(rows)} frames missed")
    print(f"age in intervals: p50 {FPS * np.median(ages):.2f}, p99 {FPS * np.quantile(ages, 0.99):.2f}")
    print(f"processor time of a frame, test picture included: {1000 * cost:.1f} ms, on {processor_name()}")


def _processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
