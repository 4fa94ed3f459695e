"""The camera options of every command that opens a camera. So a camera is recorded and classified in the same way.

OpenCV is imported only when a camera opens, because live/doctor.py must start where OpenCV is broken.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from teachcam import cli

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera


def add_camera_arguments(parser: argparse.ArgumentParser, default: str | None = "0") -> None:
    """Add --camera, --width, --height, --camera-fps and --flip to a command's parser.

    Args:
        parser: Parser of the command.
        default: The source without --camera. None if the command can do without a camera.
    """
    group = parser.add_argument_group("camera")
    group.add_argument(
        "--camera",
        default=default,
        metavar="SOURCE",
        help="0, /dev/video0, csi:0, gst:PIPELINE, http://..., rtsp://..., a video, a folder of images, or synthetic "
        f"(default: {default or 'every camera that works'})",
    )
    group.add_argument("--width", type=cli.positive_int, help="image width to request from the camera, in pixels")
    group.add_argument("--height", type=cli.positive_int, help="image height to request from the camera, in pixels")
    group.add_argument(
        "--camera-fps", type=cli.non_negative_float, help="images per second that the camera should send"
    )
    group.add_argument(
        "--flip",
        choices=("horizontal", "vertical", "180"),
        help="horizontal: swap left and right; vertical: swap top and bottom; 180: turn upside down",
    )


def open_camera(options: argparse.Namespace) -> Camera:
    """Open the camera that the options name. Raises CameraError as `Camera` does."""
    from teachcam.collect.camera import Camera, CaptureSettings

    settings = CaptureSettings(options.width, options.height, options.camera_fps)
    return Camera(options.camera, settings=settings, flip=options.flip)
