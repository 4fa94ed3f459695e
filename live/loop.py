"""The loop: the newest frame, its answer, steadied, to every sink."""

from __future__ import annotations

import sys
import threading
import time

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.errors import CameraTimeout, ModelError, UserError
from teachcam.live.classifier import Classifier
from teachcam.live.latency import Latency
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.prediction import Smoother, usual_smoothing
from teachcam.live.sinks.base import Result


def loop(
    camera: Camera,
    classifier: Classifier,
    sinks: list,
    *,
    smoothing: float | None = None,
    min_hold: float = 0.0,
    most: int | None = None,
    watcher: ModelWatcher | None = None,
    stop: threading.Event | None = None,
    pace: bool = False,
) -> int:
    """Answer frames until the camera, a sink or `stop` ends it, or `most` are answered; return how many were.

    A sink that fails is closed and said, and the others go on; the last one's error is raised. `watcher` may bring a
    newer model between two frames; where that fails, the old one goes on. With `pace` a file is played as fast as it
    was recorded. `smoothing` of None is the usual one.
    """
    stop = stop or threading.Event()
    smoothing = usual_smoothing(camera) if smoothing is None else smoothing
    sinks = list(sinks)
    latency, age, answered = Latency(), Latency(), 0
    smooth = Smoother(classifier.contract.unknown_threshold, smoothing, min_hold)
    old: Classifier | None = None  # to go back to where a newer one fails
    period = last = None  # seconds from answer to answer, smoothed
    began = time.monotonic()
    try:
        while not stop.is_set():
            try:
                frame = camera.read_frame(wait=0.25)
            except CameraTimeout:
                continue  # a lost camera says so itself
            if frame is None:
                break
            if pace and not camera.live:
                stop.wait(max(0.0, began + frame.time - time.monotonic()))
            newer = watcher.take() if watcher else None
            if newer is not None:
                old, classifier = classifier, newer
                smooth = Smoother(classifier.contract.unknown_threshold, smoothing, min_hold)

            started = time.monotonic()
            try:
                raw = classifier.classify(frame.image)
            except ModelError as error:
                if old is None:
                    raise
                print(f"went back to the old model: {first_line(error)}", file=sys.stderr, flush=True)
                old, classifier = None, old
                smooth = Smoother(classifier.contract.unknown_threshold, smoothing, min_hold)
                continue
            answer = smooth(raw, frame.time)
            now = time.monotonic()

            latency.add(now - started)
            age.add(now - frame.captured)
            if last is not None:
                period = now - last if period is None else 0.9 * period + 0.1 * (now - last)
            last = now
            answered += 1
            result = Result(
                frame, answer, raw,
                latency=now - started, age=now - frame.captured, fps=1 / period if period else 0.0,
                provider=classifier.provider, labels=classifier.contract.labels, classifier=classifier,
            )  # fmt: skip
            if not _hand_out(result, sinks) or answered == most:
                break
    finally:
        _say_how_it_went(answered, camera.dropped, latency, age, classifier.provider)
        _close(sinks)
    return answered


def _hand_out(result: Result, sinks: list) -> bool:
    """Give every sink the result; drop one that fails, and raise its error if it was the last. False ends the loop."""
    goes_on = True
    for sink in list(sinks):
        try:
            goes_on &= sink(result)
        except (OSError, UserError) as error:
            sinks.remove(sink)
            _close([sink])
            if not sinks:
                raise
            print(f"went on without: {first_line(error)}", file=sys.stderr, flush=True)
    return goes_on


def _close(sinks: list) -> None:
    """Close every sink, and then raise the first error that one had, unless another is on its way.

    An interrupt goes on with the next one, which may have a file to end.
    """
    errors = []
    for sink in sinks:
        try:
            sink.close()
        except (OSError, UserError, KeyboardInterrupt) as error:
            errors.append(error)
    if errors and sys.exc_info()[0] is None:
        raise errors[0]


def _say_how_it_went(frames: int, dropped: int, latency: Latency, age: Latency, provider: str) -> None:
    if not frames:
        print("no frame was answered", file=sys.stderr)
        return
    print(
        f"{frames} frames, {dropped} dropped, on {provider}; "
        f"latency p50 {latency.percentile(50):.1f} ms, p99 {latency.percentile(99):.1f} ms; "
        f"frame age p50 {age.percentile(50):.1f} ms, p99 {age.percentile(99):.1f} ms",
        file=sys.stderr,
    )
