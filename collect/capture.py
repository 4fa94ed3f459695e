"""Record labeled frames into data/<label>/.

    python collect/capture.py --label thumbs_up
    python collect/capture.py --label thumbs_up thumbs_down none --note "kitchen, evening"
    python collect/capture.py --label thumbs_up --headless --count 40 --fps 5
    python collect/capture.py --label door_open --camera clip.mp4 --fps 2 --headless
    python collect/capture.py --review uncertain      # sort what live/run.py --save-uncertain kept
    python collect/capture.py --list-cameras

In the window SPACE starts and stops a session, h shows all keys. Without a window every label is recorded at once,
one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from teachcam import cli
from teachcam.collect.camera import FLIPS, Camera, CaptureSettings
from teachcam.collect.dataset import check_label
from teachcam.collect.probe import list_cameras
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.review import review
from teachcam.collect.ui.viewfinder import Viewfinder
from teachcam.collect.ui.window import Window
from teachcam.errors import CameraTimeout

HEADLESS_COUNT = 40  # frames of each label from a camera, unless --count or --duration says otherwise


def main(argv: list[str] | None = None) -> int:
    """Record until `--count`, `--duration`, the end of a file, or the user ends it; print what was saved."""
    options = _parse(argv)
    if options.list_cameras:
        return list_cameras()
    labels = list(dict.fromkeys(check_label(label) for label in options.label or ()))
    if options.review:
        review(options.review, options.data, labels)
        return 0
    wanted = CaptureSettings(options.width, options.height, options.camera_fps)
    with Camera(options.camera, wanted=wanted, flip=options.flip) as camera:
        if not camera.live and len(labels) > 1:
            raise cli.UserError("a file is recorded under one label: give one --label")
        fps = options.fps if options.fps is not None else 0.0 if Path(options.camera).is_dir() else 5.0
        recorder = Recorder(camera, options.data, labels[0], fps, options.note)
        try:
            with recorder:
                record = record_headless if options.headless else record_in_window
                record(camera, recorder, labels, options)
        finally:
            for label in labels:
                print(f"{recorder.saved[label]} frames of {label} in {options.data / label}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--label", nargs="+", metavar="NAME", help="what the frames show: the names of their folders")
    parser.add_argument("--camera", default="0", help="0, csi:0, gst:PIPELINE, http://, rtsp://, a file, synthetic")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the dataset's folder")
    parser.add_argument("--fps", type=float, help="frames recorded a second, 0 for all (5; all of a folder's)")
    parser.add_argument("--count", type=int, help="end a session after this many frames")
    parser.add_argument("--duration", type=float, help="end a session after this many seconds (headless)")
    parser.add_argument("--delay", type=float, help="count down so many seconds before each label (headless)")
    parser.add_argument("--note", default="", help="what to remember of these sessions: place, light, person")
    parser.add_argument("--headless", action="store_true", help="no window: record every label at once")
    parser.add_argument("--width", type=int, help="pixels, asked of the camera")
    parser.add_argument("--height", type=int)
    parser.add_argument("--camera-fps", type=float, help="frames a second, asked of the camera")
    parser.add_argument("--flip", choices=list(FLIPS), help="turn the picture over")
    parser.add_argument("--review", type=Path, metavar="DIR", help="sort frames that the live loop was unsure of")
    parser.add_argument("--list-cameras", action="store_true", help="say which cameras answer here, and end")
    options = parser.parse_args(argv)
    if not (options.label or options.list_cameras or options.review):
        parser.error("--label: say what the frames show, as in --label thumbs_up")
    for name in ("count", "width", "height"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    for name in ("fps", "duration", "delay", "camera_fps"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            parser.error(f"--{name.replace('_', '-')}: 0 or more")
    return options


def record_headless(camera: Camera, recorder: Recorder, labels: list[str], options: argparse.Namespace) -> None:
    """Record one session of each label; a camera that is lost is waited for."""
    count, delay = options.count, options.delay
    if count is None and options.duration is None and camera.live:
        count = HEADLESS_COUNT
    if delay is None:
        delay = 3.0 if len(labels) > 1 else 0.0
    for label in labels:
        recorder.switch(label)
        _count_down(label, delay)
        recorder.start(count)
        first = None  # time of the first frame
        try:
            while not recorder.done:
                try:
                    frame = camera.read_frame(wait=0.5)
                except CameraTimeout:
                    continue  # it says on stderr that it is lost
                if frame is None:
                    break
                recorder.check()
                if not camera.live:
                    recorder.offer(frame)
                first = frame.time if first is None else first
                _progress(label, recorder.saved[label], count)
                if options.duration is not None and frame.time - first >= options.duration:
                    break
        finally:
            recorder.stop()
            _progress(label, recorder.saved[label], count, last=True)
            if camera.live:
                lost = f"{recorder.overrun} lost" if recorder.overrun else "none lost"
                print(f"{label}: {recorder.rate:.1f} frames a second, {lost}", file=sys.stderr)


def record_in_window(camera: Camera, recorder: Recorder, labels: list[str], options: argparse.Namespace) -> None:
    """Show the camera and record what the keys say, until the window is closed or a file ends."""
    viewfinder = Viewfinder(camera, recorder, labels, options.count)
    frame, key, started = None, "", time.monotonic()
    with Window(f"teachcam: record {' '.join(labels)}") as window:
        while not window.closed:
            with contextlib.suppress(CameraTimeout):  # then the last picture stays, and says that it is lost
                frame = camera.read_frame(wait=0.2)
            if frame is None:
                return
            if not camera.live:
                recorder.offer(frame)
                time.sleep(max(0.0, started + frame.time - time.monotonic()))  # play it as fast as it was
            viewfinder.press(key, frame, time.monotonic())
            key = window.show(viewfinder.draw(frame.image))


def _count_down(label: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        print(f"{label} in {left:.0f} s", file=sys.stderr, flush=True)
        time.sleep(min(1.0, left))


def _progress(label: str, saved: int, count: int | None, last: bool = False) -> None:
    """Draw a progress bar, on a terminal."""
    if not sys.stderr.isatty():
        return
    bar = "" if count is None else "[" + ("#" * (30 * saved // count)).ljust(30) + f"] of {count}"
    print(f"\r{label}: {saved} frames {bar} ", end="\n" if last else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
