"""Teach a camera to tell labels apart, on the device itself and without PyTorch: record, and see the answer at once.

    python teach/teach.py --camera 0 --label thumbs_up thumbs_down none --place kitchen
    python teach/teach.py --camera 0                    # goes on with the labels in data/

It records some images of each label, learns them within seconds, writes an ordinary model.onnx, and then classifies
what the camera shows. Nothing that was recorded before is forgotten. `train/finetune.py` trains a better model on the
same images, on a machine with PyTorch.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("teach")

import argparse
import logging
import time
from contextlib import suppress
from pathlib import Path

from teachcam import cli, ending
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.collect.capture import choose_place, record_headless
from teachcam.collect.dataset import check_labels
from teachcam.collect.recorder import Recorder
from teachcam.collect.sources import is_live
from teachcam.errors import UserError
from teachcam.files import expand
from teachcam.labels import warnings_of_labels
from teachcam.live.loop import loop
from teachcam.live.sinks.text import JsonLines, LabelChanges
from teachcam.onnx_session import PROVIDERS
from teachcam.runs import set_latest_run
from teachcam.teach.backbone import Backbone
from teachcam.teach.model_file import save_model
from teachcam.teach.progress import MIN_EXAMPLES, Progress
from teachcam.teach.teacher import FOLDER, Teacher

EXAMPLES = 20  # images of each label
FPS = 5.0  # recorded per second: more images of one second look alike

logger = logging.getLogger("teachcam.teach.teach")  # not __name__, which is __main__ for a command


def main(argv: list[str] | None = None) -> int:
    """Record the labels that were given, learn, write the model, and classify until the camera or the user ends it."""
    options = _parse(argv)
    labels = check_labels(options.data, options.label)
    for warning in warnings_of_labels(labels):
        logger.warning(f"warning: {warning}")
    if labels and not is_live(options.camera):
        raise UserError("--label: teaching needs a live camera; record a file with teachcam capture")
    place = choose_place(options.data, options.place) if labels else ""
    _teach(options, labels, place)
    return 0


@ending.only_at_checks()
def _teach(options: argparse.Namespace, labels: list[str], place: str) -> None:
    teacher = Teacher(options.data, Backbone(options.data / FOLDER, options.provider))
    try:
        with open_camera(options) as camera:
            if labels:
                with Recorder(camera, options.data, labels[0], FPS, place=place) as recorder:
                    record_headless(camera, recorder, labels, options.examples, delay=options.delay)
                teacher.refresh()
            teacher.wait()
            if teacher.model.head is None:
                raise UserError(
                    f"two labels with {MIN_EXAMPLES} images each are needed, and {options.data} has "
                    f"{_describe(teacher.progress)}: give --label NAME NAME"
                )
            out = options.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S") / "model.onnx"
            save_model(out, teacher)
            if options.out is None:
                with suppress(OSError):  # on a file system that can't be written, the path below still says where it is
                    set_latest_run(out.parent)
            print(f"learned {_describe(teacher.progress)}")
            print(teacher.progress.describe())
            print(f"wrote {out}; to run it: teachcam live --model {out}")
            sink = JsonLines(camera.live) if options.json else LabelChanges(camera.live)
            loop(camera, teacher.model, [sink], max_frames=options.max_frames, watcher=teacher)
    finally:
        teacher.close()


def _describe(progress: Progress) -> str:
    counts = [f"{count} images of {label}" for label, count in sorted(progress.counts.items())]
    return ", ".join(counts) or "no images"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add_camera_arguments(parser)
    add = parser.add_argument
    add("--label", nargs="+", default=[], metavar="NAME", help="labels to record, one after the other")
    add("--data", type=expand, default=Path("data"), metavar="DIR", help="the dataset (default: data)")
    add(
        "--place",
        metavar="NAME",
        help="where the camera is, such as kitchen (default: that of the last hour, or asked)",
    )
    add(
        "--examples",
        type=cli.positive_int,
        default=EXAMPLES,
        metavar="N",
        help="images to record of each label (default: %(default)s)",
    )
    add("--delay", type=cli.non_negative_float, help="seconds to count down before each label (default: 3)")
    add("--provider", choices=list(PROVIDERS), help="what runs the backbone (default: the first of these that works)")
    add("--out", type=expand, metavar="FILE", help="the model to write (default: runs/<time>/model.onnx)")
    add("--json", action="store_true", help="print one JSON object per frame on stdout")
    add("--max-frames", type=cli.positive_int, metavar="N", help="stop after classifying N frames")
    return parser.parse_args(argv)
