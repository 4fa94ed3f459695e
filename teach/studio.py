"""Open the studio: a web page that teaches a camera while you watch.

    python teach/studio.py --camera 0
    python teach/studio.py --camera csi:0 --http 0.0.0.0:8080     # for a laptop or phone beside the device

Hold a button to record a label, and see the answer live from the second label on. All that is recorded is in data/, as
with collect/capture.py. It needs no PyTorch; where that is installed, the page can also train a better model.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("studio")

import argparse
import logging
import time
from contextlib import ExitStack
from pathlib import Path

from teachcam import cli, ending
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.collect.sources import is_live
from teachcam.errors import UserError
from teachcam.files import expand
from teachcam.live.loop import loop
from teachcam.live.web import http_address
from teachcam.onnx_session import PROVIDERS
from teachcam.teach.backbone import Backbone
from teachcam.teach.session import Studio
from teachcam.teach.teacher import FOLDER, Teacher

logger = logging.getLogger("teachcam.teach.studio")  # not __name__, which is __main__ for a command


def main(argv: list[str] | None = None) -> int:
    """Serve the page until the user ends it."""
    options = _parse(argv)
    if not is_live(options.camera):
        raise UserError(f"--camera {options.camera}: the studio needs a live camera")
    from teachcam.teach.page import StudioPage  # its packages are there: http_address has looked

    with ending.only_at_checks(), ExitStack() as stack:
        camera = stack.enter_context(open_camera(options))
        teacher = Teacher(options.data, Backbone(options.data / FOLDER, options.provider, options.tune))
        stack.callback(teacher.close)
        studio = Studio(camera, options.data, teacher, Path("runs") / time.strftime("%Y%m%d-%H%M%S"))
        stack.callback(studio.close)
        address, port = options.http
        page = StudioPage(address, port, camera, studio)
        logger.info(f"the studio: {page.url}")
        loop(camera, teacher.model, [page], watcher=studio)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add_camera_arguments(parser)
    add = parser.add_argument
    add("--data", type=expand, default=Path("data"), metavar="DIR", help="the dataset (default: data)")
    add(
        "--http",
        type=http_address,
        default="8080",
        metavar="[ADDRESS:]PORT",
        help="where to serve the page; 8080: for browsers on this machine; 0.0.0.0:8080: for other machines, too "
        "(default: 8080)",
    )
    add("--provider", choices=list(PROVIDERS), help="what runs the backbone (default: the first of these that works)")
    add("--tune", action="store_true", help="measure once what is fastest on this device, and use it from then on")
    return parser.parse_args(argv)
