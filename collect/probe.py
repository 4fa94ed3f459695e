"""Which cameras answer on this machine."""

from __future__ import annotations

from pathlib import Path

from collect.camera import Camera, CameraError
from collect.sources import has_gstreamer


def list_cameras() -> int:
    """Try every camera there may be and print the ones that answer, with size and rate; 2 if there is none."""
    found = 0
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    candidates = [str(path) for path in devices] or ["0"]
    if Path("/dev/nvhost-vi").exists() or Path("/dev/capture-vi-channel0").exists():  # a Jetson's camera interface
        candidates += ["csi:0", "csi:1"]
    for source in candidates:
        try:
            with Camera(source, timeout=5.0) as camera:
                height, width = camera.read().shape[:2]
                print(f"{source}  {width}x{height}  {camera.fps:g} FPS")
                found += 1
        except CameraError:
            continue
    print(f"synthetic  640x480  30 FPS  (drawn, always there)\nGStreamer: {'yes' if has_gstreamer() else 'no'}")
    return 0 if found else 2
