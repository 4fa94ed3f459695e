"""Find the cameras that work on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, NamedTuple

from teachcam.collect.camera import Camera
from teachcam.collect.gstreamer import has_gstreamer
from teachcam.collect.sources import is_same_camera
from teachcam.errors import CameraError


class CameraInfo(NamedTuple):
    """A camera that sends images."""

    source: str  # its name for --camera
    width: int  # pixels
    height: int
    fps: float  # images per second, as the camera states it; 0 if it does not


def find_cameras(in_use: str | None = None) -> Iterator[CameraInfo]:
    """Open every camera that may be there, and yield those that send an image. It takes seconds.

    Args:
        in_use: A camera that is left out, because this program has opened it.
    """
    devices = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    candidates = [str(path) for path in devices] or ["0"]
    if Path("/dev/nvhost-vi").exists() or Path("/dev/capture-vi-channel0").exists():  # a Jetson's camera interface
        candidates += ["csi:0", "csi:1"]
    for source in candidates:
        if in_use is not None and is_same_camera(source, in_use):
            continue
        try:
            with Camera(source, timeout=5.0) as camera:
                image = camera.read()
                if image is not None:
                    yield CameraInfo(source, image.shape[1], image.shape[0], camera.fps)
        except CameraError:
            continue


def print_cameras() -> int:
    """Print the cameras that work. Returns the exit code: 0, or 2 if there is none."""
    found, links = 0, _links_by_device()
    for camera in find_cameras():
        print(f"{camera.source}  {camera.width}x{camera.height}  {camera.fps:g} FPS")
        for link in links.get(camera.source, []):
            print(f"    or {link}")
        found += 1
    print(f"synthetic  640x480  30 FPS  (drawn, needs no camera)\nGStreamer: {'yes' if has_gstreamer() else 'no'}")
    return 0 if found else 2


def _links_by_device(folder: Path = Path("/dev/v4l/by-id")) -> dict[str, list[Path]]:
    """Return the links to each device file. Their names stay when cameras are plugged in in another order."""
    links: dict[str, list[Path]] = {}
    for link in sorted(folder.glob("*")):
        links.setdefault(str(link.resolve()), []).append(link)
    return links
