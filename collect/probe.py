"""Which cameras answer on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, NamedTuple

from teachcam.collect.camera import Camera, CameraError
from teachcam.collect.sources import has_gstreamer


class Found(NamedTuple):
    """A camera that answers, its size in pixels, and what it says of its frames a second."""

    source: str
    width: int
    height: int
    fps: float


def cameras() -> Iterator[Found]:
    """Try every camera there may be."""
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    candidates = [str(path) for path in devices] or ["0"]
    if Path("/dev/nvhost-vi").exists() or Path("/dev/capture-vi-channel0").exists():  # a Jetson's camera interface
        candidates += ["csi:0", "csi:1"]
    for source in candidates:
        try:
            with Camera(source, timeout=5.0) as camera:
                height, width = camera.read().shape[:2]
                yield Found(source, width, height, camera.fps)
        except CameraError:
            continue


def list_cameras() -> int:
    """Print the cameras that answer; 2 if there is none."""
    found = 0
    for camera in cameras():
        print(f"{camera.source}  {camera.width}x{camera.height}  {camera.fps:g} FPS")
        found += 1
    print(f"synthetic  640x480  30 FPS  (drawn, always there)\nGStreamer: {'yes' if has_gstreamer() else 'no'}")
    return 0 if found else 2
