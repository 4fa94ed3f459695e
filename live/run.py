"""Classify the images of a camera, live.

    python live/run.py --camera 0
    python live/run.py --camera clip.mp4 --headless --json
    python live/run.py --headless --http 8080 --watch
    python live/run.py --on thumbs_up="mpc play" --on thumbs_down="mpc stop"
    python live/run.py --headless --mqtt mqtt://me@pi/home/kitchen

By default it runs the newest run's model. A checkpoint is exported first, and only that needs torch.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("live")

import argparse
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from teachcam import cli, ending
from teachcam.collect.camera import Camera
from teachcam.collect.camera_options import add_camera_arguments, open_camera
from teachcam.errors import ModelError
from teachcam.files import expand
from teachcam.live.feedback import CorrectionWriter
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher, describe_file, find_model
from teachcam.live.prediction import SMOOTHING, Model
from teachcam.live.sinks.actions import COOL_DOWN, Actions
from teachcam.live.sinks.base import Sink
from teachcam.live.sinks.mqtt import Mqtt
from teachcam.live.sinks.mqtt_address import PASSWORD_VARIABLE, broker_address, read_password
from teachcam.live.sinks.text import JsonLines, LabelChanges
from teachcam.live.sinks.uncertain import UncertainFrames
from teachcam.live.sinks.video import Video
from teachcam.live.sinks.watchdog import Watchdog
from teachcam.live.sinks.webhook import Webhook, receiver_url
from teachcam.live.sinks.window import LiveWindow
from teachcam.live.tuning import open_model
from teachcam.live.web import http_address
from teachcam.onnx_session import PROVIDERS

logger = logging.getLogger("teachcam.live.run")


def main(argv: list[str] | None = None) -> int:
    """Classify every frame until the source, `--max-frames` or the user ends it."""
    options = _parse(argv)
    model = find_model(options.model)
    # The watcher starts before the model is loaded. Otherwise it would miss a model that is written meanwhile.
    watcher = ModelWatcher(options.model, options.provider) if options.watch else None
    classifier = open_model(model, options.provider, options.tune, options.data)
    labels = classifier.contract.labels
    logger.info(f"{describe_file(classifier.path)}: {', '.join(labels)}; {classifier.provider}")
    try:
        classifier.self_check()
    except ModelError as error:  # only a warning: the user may want to look at the model all the same
        logger.warning(f"warning: {error}")
    with ending.only_at_checks(), ExitStack() as stack:
        # Actions first: a wrong --on is reported before the camera opens.
        actions = [Actions(options.on, labels, options.cool_down, options.shell)] if options.on else []
        camera = stack.enter_context(open_camera(options))
        correct = CorrectionWriter(options.data, note="corrected live", **camera.metadata)
        window = None if options.headless else LiveWindow(camera, correct)
        sinks = [*actions, *_open_sinks(options, camera, labels, correct)]
        if watcher:
            stack.callback(watcher.close)
        settings = {
            "smoothing": options.smoothing,
            "min_hold": options.min_hold,
            "max_frames": options.max_frames,
            "watcher": watcher,
        }
        if window is None:
            loop(camera, classifier, sinks, **settings)
        else:
            _run_with_window(window, camera, classifier, [*sinks, window], settings)
    return 0


def _open_sinks(
    options: argparse.Namespace, camera: Camera, labels: tuple[str, ...], correct: CorrectionWriter
) -> list[Sink]:
    """Open the sinks that the options ask for, except the actions and the window."""
    sinks: list[Sink] = [JsonLines(camera.live) if options.json else LabelChanges(camera.live)]
    if options.http:
        from teachcam.live.web.server import Web  # takes as long to import as everything else together

        address, port = options.http
        page = Web(address, port, list(labels), camera, correct)
        sinks.append(page)
        logger.info(f"the page: {page.url}")
    if options.mqtt:
        sinks.append(Mqtt(options.mqtt, read_password(options.mqtt_password_file)))
    if options.post:
        sinks.append(Webhook(options.post, camera.live, options.post_image))
    if sys.platform == "linux" and os.environ.get("NOTIFY_SOCKET"):  # systemd waits for signs of life
        sinks.append(Watchdog(os.environ["NOTIFY_SOCKET"]))
    if options.save_uncertain:
        sinks.append(UncertainFrames(options.save_uncertain, camera.live))
    if options.record:  # last: if another sink can't be opened, no empty video is left behind
        sinks.append(Video(options.record, camera.fps, camera.live))
    return sinks


def _run_with_window(window: LiveWindow, camera: Camera, classifier: Model, sinks: list[Sink], settings: dict) -> None:
    """Run the loop in another thread, because a window must be in the main one."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "loop") as pool:
        running = pool.submit(loop, camera, classifier, sinks, stop=stop, real_time=True, **settings)
        try:
            window.run(lambda: not (running.done() or ending.was_asked()))
        finally:
            stop.set()
    running.result()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add_camera_arguments(parser)
    add = parser.add_argument
    add("--model", type=expand, help="an ONNX file or a checkpoint (default: the newest run's)")
    add("--watch", action="store_true", help="load a newer model as soon as it is written")
    add("--provider", choices=list(PROVIDERS), help="what runs the model (default: the first of these that works)")
    add(
        "--tune",
        action="store_true",
        help="measure once which precision, provider and number of threads are fastest on this device, and use them "
        "from then on; int8 needs 40 images in --data, fp16 (on a GPU) fewer",
    )
    add("--max-frames", type=int, metavar="N", help="stop after N frames")
    add(
        "--smoothing",
        type=float,
        metavar="SECONDS",
        help=f"average predictions over this time, 0: off (default: {SMOOTHING}, and 0 for a folder of images)",
    )
    add(
        "--min-hold",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long a new label must last to be reported (default: 0)",
    )
    add("--on", action="append", metavar="LABEL=COMMAND", help="run a command when this label appears; repeatable")
    add(
        "--cool-down",
        type=float,
        default=COOL_DOWN,
        metavar="SECONDS",
        help="shortest time between two commands of one label (default: %(default)s)",
    )
    add("--shell", action="store_true", help="run the commands of --on in a shell, for pipes and variables")
    add(
        "--mqtt",
        type=broker_address,
        metavar="URL",
        help="publish to an MQTT broker, mqtt://[USER@]HOST[:PORT]/TOPIC or mqtts://..., also for Home Assistant",
    )
    add(
        "--mqtt-password-file",
        type=expand,
        metavar="FILE",
        help=f"its first line is the broker's password (default: the environment variable {PASSWORD_VARIABLE})",
    )
    add("--post", type=receiver_url, metavar="URL", help="post JSON to a web address when the label changes")
    add("--post-image", action="store_true", help="post the picture, too")
    add("--headless", action="store_true", help="open no window")
    add("--json", action="store_true", help="print one JSON object per frame on stdout")
    add("--record", type=expand, metavar="FILE", help="record a video with the predictions drawn in, .mp4 or .mkv")
    add(
        "--http",
        type=http_address,
        metavar="[ADDRESS:]PORT",
        help="serve a web page; 8080: for browsers on this machine; 0.0.0.0:8080: for other machines, too",
    )
    add("--save-uncertain", type=expand, metavar="DIR", help="save the frames that the model was unsure of")
    add(
        "--data",
        type=expand,
        default=Path("data"),
        metavar="DIR",
        help="the dataset: it receives corrections, and gives --tune its images (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.tune and options.provider:
        parser.error("--tune chooses the provider: leave --provider out")
    if options.max_frames is not None and options.max_frames < 1:
        parser.error("--max-frames must be at least 1")
    if options.mqtt_password_file and not options.mqtt:
        parser.error("--mqtt-password-file needs --mqtt")
    if options.post_image and not options.post:
        parser.error("--post-image needs --post")
    for name in ("smoothing", "min_hold", "cool_down"):
        seconds = getattr(options, name)
        if seconds is not None and not 0 <= seconds < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be a number of seconds, 0 or more")
    return options
