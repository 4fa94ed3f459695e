"""The live loop: take the newest frame, predict, smooth, and hand the result to every sink."""

from __future__ import annotations

import logging
import threading
import time

from teachcam import ending
from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.errors import CameraTimeout, ModelError, UserError
from teachcam.live.active_model import ActiveModel
from teachcam.live.loop_stats import LoopStats
from teachcam.live.prediction import Model, ModelSource, default_smoothing
from teachcam.live.sinks.base import FrameResult, Sink

CAMERA_WAIT = 0.25  # seconds to wait for a frame before looking at `stop` again

logger = logging.getLogger(__name__)


@ending.only_at_checks()
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
    fails is logged, and the model before it continues. A signal ends the loop between two frames (see ending.py).

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
        KeyboardInterrupt: A signal asked the program to end.
    """
    stop = stop or threading.Event()
    model = ActiveModel(classifier, default_smoothing(camera) if smoothing is None else smoothing, min_hold)
    stats, sinks = LoopStats(), list(sinks)
    failures: list[Exception] = []  # of sinks
    loop_start = time.monotonic()
    try:
        while not stop.is_set():
            ending.check()
            try:
                frame = camera.read_frame(wait=CAMERA_WAIT)
            except CameraTimeout:
                continue  # the camera itself logs that it is reconnecting
            if frame is None:
                break
            if real_time and not camera.live:
                _wait(stop, loop_start + frame.time)
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
        if ending.was_asked():  # the exception that ends the loop is the interruption
            for failure in failures:
                if not isinstance(failure, BrokenPipeError):  # Ctrl-C ends the reader, too
                    logger.warning(f"an output failed: {first_line(failure)}")
    # A reader that has seen enough, as `| head`, is no failure, unless nobody else has got the results.
    if failures:
        raise min(failures, key=lambda error: isinstance(error, BrokenPipeError))
    return stats.num_frames


def _wait(stop: threading.Event, until: float) -> None:
    """Wait until a time of time.monotonic(), `stop`, or a signal."""
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(CAMERA_WAIT, left)):
        ending.check()


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
    """Close all sinks at the same time; return the errors of those that fail.

    After a signal, a sink that takes too long is left behind, unless it is finishing a recording. Each has a thread of
    its own, because one may have a file to finish while another one waits for a network.
    """
    raised: dict[int, BaseException] = {}

    def close(number: int, sink: Sink) -> None:
        try:
            sink.close()
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=close, args=entry, name="close", daemon=True) for entry in enumerate(sinks)]
    for thread in threads:
        thread.start()
    for number, (thread, sink) in enumerate(zip(threads, sinks)):
        while thread.is_alive() and (not ending.was_asked(ending.CLOSE_TIMEOUT) or ending.is_progressing(sink.close)):
            thread.join(0.05)
        if thread.is_alive():
            raised[number] = UserError(f"{type(sink).__name__} did not close in time: its last results are lost")
    failures = []
    for number, error in sorted(raised.items()):
        if not isinstance(error, Exception):
            raise error
        failures.append(_explained(error, sinks[number]))
    return failures


def _explained(error: Exception, sink: Sink) -> Exception:
    """Return the error of a sink as one that a command reports in one line."""
    if isinstance(error, (OSError, UserError)):
        return error
    return UserError(f"{type(sink).__name__}: {type(error).__name__}: {first_line(error)}")
