"""Answer live: camera in, label out.

    python live/run.py --camera 0
    python live/run.py --camera clip.mp4 --headless --json
    python live/run.py --headless --http 8080 --watch
    python live/run.py --on thumbs_up="mpc play" --on thumbs_down="mpc stop"

Takes the newest run unless --model names an ONNX file; a checkpoint is exported first. Needs no torch but for that.
"""

from __future__ import annotations

import argparse
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from teachcam import cli
from teachcam.collect.camera import Camera
from teachcam.errors import ModelError
from teachcam.live.classifier import Classifier
from teachcam.live.feedback import CorrectionWriter
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher, find_model
from teachcam.live.prediction import SMOOTHING
from teachcam.live.sinks.actions import COOL_DOWN, Actions
from teachcam.live.sinks.text import JsonLines, LabelChanges
from teachcam.live.sinks.uncertain import Uncertain
from teachcam.live.sinks.video import Video
from teachcam.live.sinks.window import Screen
from teachcam.onnx_session import PROVIDERS


def main(argv: list[str] | None = None) -> int:
    """Answer every frame until the source, `--frames` or the user ends it."""
    options = _parse(argv)
    model = find_model(options.model)
    watcher = ModelWatcher(options.model, options.provider) if options.watch else None  # first, or it misses one
    classifier = Classifier(model, options.provider)
    labels = classifier.contract.labels
    print(f"{classifier.path}: {', '.join(labels)}; {classifier.provider}", file=sys.stderr)
    try:
        classifier.self_check()
    except ModelError as error:  # the user may want to see it all the same
        print(f"warning: {error}", file=sys.stderr)
    with ExitStack() as stack:
        sinks = [Actions(options.on, labels, options.cool_down, options.shell)] if options.on else []
        camera = stack.enter_context(Camera(options.camera))
        teach = CorrectionWriter(options.data, camera=options.camera, note="corrected live")
        screen = None if options.headless else Screen(camera, teach)
        sinks.append(JsonLines(camera.live) if options.json else LabelChanges(camera.live))
        if options.http:
            from teachcam.live.web.server import Web

            sinks.append(Web(*options.http, list(labels), camera, teach))
            print(f"the page: {sinks[-1].url}", file=sys.stderr)
        if options.save_uncertain:
            sinks.append(Uncertain(options.save_uncertain, camera.live))
        if options.record:  # last: where another can't begin, no empty file is left
            sinks.append(Video(options.record, camera.fps or 30.0, camera.live))
        if watcher:
            stack.callback(watcher.close)
        settings = {
            "smoothing": options.smoothing, "min_hold": options.min_hold, "most": options.frames, "watcher": watcher,
        }  # fmt: skip
        if screen is None:
            loop(camera, classifier, sinks, **settings)
        else:
            _with_window(screen, camera, classifier, [*sinks, screen], settings)
    return 0


def _with_window(screen: Screen, camera: Camera, classifier: Classifier, sinks: list, settings: dict) -> None:
    """Run the loop in a thread of its own, for a window belongs to the main one."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "loop") as pool:
        running = pool.submit(loop, camera, classifier, sinks, stop=stop, pace=True, **settings)
        try:
            screen.run(lambda: not running.done())
        finally:
            stop.set()
    running.result()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--camera", default="0", help="0, http://..., rtsp://..., a file, a folder, synthetic")
    parser.add_argument("--model", type=Path, help="an ONNX file or a checkpoint (the newest run's)")
    parser.add_argument("--watch", action="store_true", help="take a newer model as soon as there is one")
    parser.add_argument("--provider", choices=list(PROVIDERS), help="insist on an execution provider")
    parser.add_argument("--frames", type=int, help="stop after this many frames")
    parser.add_argument("--smoothing", type=float, help=f"seconds to average over ({SMOOTHING}; for a folder 0)")
    parser.add_argument("--min-hold", type=float, default=0.0, help="seconds until another label counts (0)")
    parser.add_argument("--on", action="append", metavar="LABEL=COMMAND", help="run a command when it is that label")
    parser.add_argument("--cool-down", type=float, default=COOL_DOWN, help=f"seconds between two of one ({COOL_DOWN})")
    parser.add_argument("--shell", action="store_true", help="hand the commands of --on to a shell")
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument("--json", action="store_true", help="a JSON object a frame on stdout")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write an annotated video, .mp4 or .mkv")
    parser.add_argument("--http", type=_address, metavar="[ADDRESS:]PORT", help="serve a web page")
    parser.add_argument("--save-uncertain", type=Path, metavar="DIR", help="keep the frames it was unsure of")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where corrections are saved: the dataset")
    options = parser.parse_args(argv)
    if options.frames is not None and options.frames < 1:
        parser.error("--frames: at least 1")
    for name in ("smoothing", "min_hold", "cool_down"):
        if getattr(options, name) is not None and not 0 <= getattr(options, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')}: seconds, 0 or more")
    return options


def _address(text: str) -> tuple[str, int]:
    try:
        from teachcam.live.web.auth import (
            address_and_port,  # only now: a web server takes as long to import as all of the rest
        )
    except ImportError:
        raise cli.UserError("--http needs two more packages: pip install starlette uvicorn") from None
    return address_and_port(text)


if __name__ == "__main__":
    cli.run(main)
