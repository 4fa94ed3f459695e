"""The live loop: take the newest frame, predict, smooth, and hand the result to every sink."""

from __future__ import annotations

import logging
import sys
import threading
import time

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.errors import CameraTimeout, ModelError, UserError
from teachcam.live.active_model import ActiveModel
from teachcam.live.loop_stats import LoopStats
from teachcam.live.prediction import Model, ModelSource, default_smoothing
from teachcam.live.sinks.base import FrameResult, Sink

CAMERA_WAIT = 0.25  # seconds to wait for a frame before looking at `stop` again

logger = logging.getLogger(__name__)


def loop(
    camera: Camera,
    classifier: Model,
    sinks: list[Sink],
    *,
    smoothing: float | None = None,
    min_hold: float = 0.0,
    max_frames: int | None = None,
    watcher: ModelSource | None = None,
    stop: threading.Event | None = None,
    real_time: bool = False,
) -> int:
    """Classify frames until the camera, a sink, `stop` or `max_frames` ends it.

    A sink that fails is closed and logged, the others continue, and its error is raised at the end. A newer model that
    fails is logged, and the model before it continues.

    Args:
        camera: An open camera, video file or folder of images.
        classifier: The model to start with. The calling thread runs it.
        sinks: Called with each frame's result. A sink returns False to end the loop. All are closed at the end.
        smoothing: Seconds over which predictions are averaged. 0 turns it off, None means `default_smoothing`.
        min_hold: Seconds that a new label must stay the likeliest before it is reported.
        max_frames: Stop after this many frames.
        watcher: Brings a newer model, which the loop takes between two frames.
        stop: Set it in another thread to end the loop.
        real_time: Play a file as fast as it was recorded. Otherwise it is read as fast as the model runs.

    Returns:
        How many frames were classified.

    Raises:
        CameraError: The camera failed.
        ModelError: The model failed, and there was none before it.
        OSError, UserError: A sink failed.
    """
    stop = stop or threading.Event()
    model = ActiveModel(classifier, default_smoothing(camera) if smoothing is None else smoothing, min_hold)
    stats, sinks = LoopStats(), list(sinks)
    failures: list[Exception] = []  # of sinks
    loop_start = time.monotonic()
    try:
        while not stop.is_set():
            try:
                frame = camera.read_frame(wait=CAMERA_WAIT)
            except CameraTimeout:
                continue  # the camera itself logs that it is reconnecting
            if frame is None:
                break
            if real_time and not camera.live:
                stop.wait(max(0.0, loop_start + frame.time - time.monotonic()))
            newer = watcher.take() if watcher else None
            if newer is not None:
                model.swap(newer)

            started = time.monotonic()
            try:
                smoothed, raw = model.predict(frame)
            except ModelError as error:
                model.roll_back(error)
                continue
            now = time.monotonic()
            latency, age = now - started, now - frame.captured
            stats.add(latency, age, now)

            result = FrameResult(frame, smoothed, raw, latency, age, stats.fps, model.classifier)
            if not _send(result, sinks, failures) or stats.num_frames == max_frames:
                break
    finally:
        stats.log(camera.dropped, model.classifier.provider)
        failures += _close(sinks)
    # A reader that has seen enough, as `| head`, is no failure, unless nobody else has got the results.
    if failures:
        raise min(failures, key=lambda error: isinstance(error, BrokenPipeError))
    return stats.num_frames


def _send(result: FrameResult, sinks: list[Sink], failures: list[Exception]) -> bool:
    """Call every sink, and drop those that fail; return False if one ends the loop, or if none is left."""
    goes_on = True
    for sink in list(sinks):
        try:
            goes_on &= sink(result)
        except Exception as error:
            sinks.remove(sink)
            failure = _explained(error, sink)
            failures += [failure, *_close([sink])]
            if sinks:
                logger.warning(f"an output failed, the others continue: {first_line(failure)}")
    return goes_on and bool(sinks)


def _close(sinks: list[Sink]) -> list[Exception]:
    """Close every sink; return the errors of those that fail.

    Ctrl-C does not skip the remaining sinks, because one may have a file to finish.
    """
    failures: list[Exception] = []
    interruption = None
    for sink in sinks:
        try:
            sink.close()
        except KeyboardInterrupt as error:
            interruption = error
        except Exception as error:
            failures.append(_explained(error, sink))
    if interruption is not None and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
        raise interruption
    return failures


def _explained(error: Exception, sink: Sink) -> Exception:
    """Return the error of a sink as one that a command reports in one line."""
    if isinstance(error, (OSError, UserError)):
        return error
    return UserError(f"{type(sink).__name__}: {type(error).__name__}: {first_line(error)}")
