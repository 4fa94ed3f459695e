"""Record labeled images with a camera into data/<label>/.

    python collect/capture.py --label thumbs_up
    python collect/capture.py --label thumbs_up thumbs_down none --place kitchen
    python collect/capture.py --label thumbs_up --headless --max-frames 40 --fps 5
    python collect/capture.py --label door_open --camera clip.mp4 --fps 2 --headless
    python collect/capture.py --review uncertain      # sort the images that teachcam live --save-uncertain saved
    python collect/capture.py --list-cameras

In the window, SPACE starts and stops a session, and h shows all keys. With --headless there is no window: one session
of each label is recorded, one after another.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("capture")

import argparse
import contextlib
import logging
import sys
import time
from pathlib import Path

from teachcam import cli, ending
from teachcam.collect.camera import Camera
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.collect.dataset import check_labels, last_place
from teachcam.collect.names import check_place
from teachcam.collect.probe import print_cameras
from teachcam.collect.recorder import Recorder
from teachcam.collect.sources import is_live
from teachcam.collect.ui.review import review
from teachcam.collect.ui.viewfinder import Viewfinder
from teachcam.collect.ui.window import Window
from teachcam.errors import CameraTimeout, UserError
from teachcam.files import expand
from teachcam.labels import warnings_of_labels

logger = logging.getLogger("teachcam.collect.capture")  # not __name__, which is __main__ for a command

DEFAULT_FPS = 5.0  # recorded from a camera or a video: more images of one second look alike
HEADLESS_FRAMES = 40  # of each label from a live camera without a window, unless an option says otherwise
HEADLESS_DELAY = 3.0  # seconds to get ready for each label, if there are several


def main(argv: list[str] | None = None) -> int:
    """Record until --max-frames, --duration, the end of a file or the user stops it. Print what was saved."""
    options = _parse(argv)
    if options.list_cameras:
        return print_cameras()
    labels = check_labels(options.data, options.label or ())
    if options.review:
        review(options.review, options.data, labels)
        return 0
    for warning in warnings_of_labels(labels):
        logger.warning("warning: %s", warning)
    if len(labels) > 1 and not is_live(options.camera):
        raise UserError("a file is recorded under one label: give one --label")
    place = choose_place(options.data, options.place)
    with ending.only_at_checks(), open_camera(options) as camera:
        default_fps = DEFAULT_FPS if camera.live or camera.fps else 0.0  # pictures in a folder have no rate
        fps = default_fps if options.fps is None else options.fps
        recorder = Recorder(camera, options.data, labels[0], fps, options.note, place)
        try:
            with recorder:
                if options.headless:
                    record_headless(camera, recorder, labels, options.max_frames, options.duration, options.delay)
                else:
                    record_in_window(camera, recorder, labels, options.max_frames)
        finally:
            for label in labels:
                print(f"{recorder.saved[label]} frames of {label} in {options.data / label}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--label", nargs="+", metavar="NAME", help="one or more labels to record; each gets a folder in --data"
    )
    parser.add_argument("--data", type=expand, default=Path("data"), metavar="DIR", help="the dataset (default: data)")
    parser.add_argument(
        "--fps",
        type=cli.non_negative_float,
        help=f"images to save per second, 0 for all (default: {DEFAULT_FPS:g}, all of a folder)",
    )
    parser.add_argument(
        "--max-frames", type=cli.positive_int, help="end each session after this many frames (headless, live: 40)"
    )
    parser.add_argument(
        "--duration", type=cli.non_negative_float, help="end each session after this many seconds (with --headless)"
    )
    parser.add_argument(
        "--delay",
        type=cli.non_negative_float,
        help="seconds to count down before each label, with --headless (default: 3 with several labels, else 0)",
    )
    parser.add_argument(
        "--place",
        metavar="NAME",
        help="where the camera is, such as kitchen, or who is in front of it: accuracy is measured in other places "
        "(default: the place of the last hour, or you are asked)",
    )
    parser.add_argument("--note", default="", help="a note for these sessions")
    parser.add_argument(
        "--headless", action="store_true", help="open no window: record one label after the other, without a key"
    )
    parser.add_argument(
        "--review", type=expand, metavar="DIR", help="label the images that teachcam live --save-uncertain saved in DIR"
    )
    parser.add_argument("--list-cameras", action="store_true", help="list the cameras that work, and exit")
    add_camera_arguments(parser)
    options = parser.parse_args(argv)
    if not (options.label or options.list_cameras or options.review):
        parser.error("--label is missing: give the name of what the camera shows, as in --label thumbs_up")
    return options


def choose_place(data: Path, place: str | None) -> str:
    """Return the place to record in: the given one, the one of the last hour, or what the user answers.

    Without a terminal nobody is asked. The place is "" then, and check.py and training compare backgrounds.
    """
    if place is not None:
        return check_place(place)
    if place := last_place(data):
        logger.info("place: %s; for another one, give --place NAME", place)
        return place
    if not (sys.stdin and sys.stdin.isatty()):
        return ""
    print(
        "Where is the camera? Name this place, for example kitchen (Enter: no name): ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return check_place(sys.stdin.readline())


def record_headless(
    camera: Camera,
    recorder: Recorder,
    labels: list[str],
    max_frames: int | None = None,
    duration: float | None = None,
    delay: float | None = None,
) -> None:
    """Record one session of each label. If the camera is lost, wait until it is back.

    Args:
        camera: An open camera.
        recorder: Recorder of this camera.
        labels: In the order to record them.
        max_frames: Ends each session. By default 40 for a live camera without `duration`.
        duration: Seconds of a session.
        delay: Seconds to count down before each label. By default 3 if there are several labels.
    """
    if max_frames is None and duration is None and camera.live:
        max_frames = HEADLESS_FRAMES
    if delay is None:
        delay = HEADLESS_DELAY if len(labels) > 1 else 0.0
    for label in labels:
        recorder.set_label(label)
        _count_down(label, delay)
        recorder.start(max_frames)
        try:
            _record_session(camera, recorder, max_frames, duration)
        finally:
            recorder.stop()
            _show_progress(label, recorder.saved[label], max_frames, last=True)
            if camera.live:
                dropped = f"{recorder.dropped} lost" if recorder.dropped else "none lost"
                logger.info("%s: %.1f frames a second, %s", label, recorder.measured_fps, dropped)


def _record_session(camera: Camera, recorder: Recorder, max_frames: int | None, duration: float | None) -> None:
    """Read the camera until the open session is complete, or the file ends."""
    started = None  # time of the first frame
    while not recorder.done:
        ending.check()
        try:
            frame = camera.read_frame(wait=0.5)
        except CameraTimeout:  # the camera logs that it is lost
            continue
        if frame is None:
            return
        recorder.check_writer()
        started = frame.time if started is None else started
        _show_progress(recorder.label, recorder.saved[recorder.label], max_frames)
        if duration is not None and frame.time - started >= duration:
            return


def record_in_window(camera: Camera, recorder: Recorder, labels: list[str], max_frames: int | None = None) -> None:
    """Show the camera in a window, and record as the user presses keys, until the window is closed or a file ends.

    Args:
        camera: An open camera.
        recorder: Recorder of this camera.
        labels: In the order of their keys, 1 to 9.
        max_frames: Ends each session.
    """
    viewfinder = Viewfinder(camera, recorder, labels, max_frames)
    frame, key, started = None, "", time.monotonic()
    with Window(f"teachcam: record {' '.join(labels)}") as window:
        while not window.closed:
            ending.check()
            with contextlib.suppress(CameraTimeout):  # the last image stays, and the viewfinder says why
                frame = camera.read_frame(wait=0.2)
            if frame is None:
                return
            if not camera.live:
                ending.sleep(started + frame.time - time.monotonic())  # play a video at its own speed
            viewfinder.press(key, frame, time.monotonic())
            key = window.show(viewfinder.draw(frame.image))


def _count_down(label: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        logger.info("%s in %.0f s", label, left)
        ending.sleep(min(1.0, left))


def _show_progress(label: str, saved: int, max_frames: int | None, last: bool = False) -> None:
    """Draw a progress bar, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return
    bar = "" if max_frames is None else "[" + ("#" * (30 * saved // max_frames)).ljust(30) + f"] of {max_frames}"
    print(f"\r{label}: {saved} frames {bar} ", end="\n" if last else "", file=sys.stderr, flush=True)
