"""Count predictions for Prometheus, and write the totals in its text format (version 0.0.4).

The text is written by hand: so few series need no library, and the page needs no further package.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Iterator

from teachcam import __version__
from teachcam.live.prediction import UNKNOWN

if TYPE_CHECKING:
    from teachcam.live.sinks.base import FrameResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds: from a GPU to a small board


class Histogram:
    """Counts durations in BUCKETS, as Prometheus computes percentiles from them (histogram_quantile)."""

    def __init__(self):
        self._counts = [0] * (len(BUCKETS) + 1)  # the last one is for longer durations
        self._total = 0.0  # seconds

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._total += seconds

    def samples(self) -> Iterator[tuple[str, float]]:
        """Yield the end of each sample's name and its value."""
        count = 0
        for bound, number in zip((*BUCKETS, "+Inf"), self._counts):
            count += number
            yield f'_bucket{{le="{bound}"}}', count
        yield "_sum", self._total
        yield "_count", count


class Metrics:
    """The totals of a live loop since its start."""

    def __init__(self):
        self._lock = threading.Lock()  # the loop adds, the server's thread reads
        self._predictions: Counter[str] = Counter()  # frames by predicted label
        self._latency, self._age = Histogram(), Histogram()
        self._newest: FrameResult | None = None

    def add(self, result: FrameResult) -> None:
        """Count the result of one frame. Takes microseconds."""
        with self._lock:
            self._predictions[result.prediction.label] += 1
            self._latency.add(result.latency)
            self._age.add(result.age)
            self._newest = result

    def to_text(self, dropped: int, camera_lost: bool) -> str:
        """Return all metrics in Prometheus's text format.

        Args:
            dropped: Frames that the camera took and the loop had no time for.
            camera_lost: Whether the camera is being connected again.
        """
        with self._lock:
            newest, predictions = self._newest, dict(self._predictions)
            latency, age = list(self._latency.samples()), list(self._age.samples())
        frames = sum(predictions.values())
        lines = [
            *_metric("frames_total", "counter", "Frames that were classified.", [("", frames)]),
            *_metric("frames_dropped_total", "counter", "Frames that the loop had no time for.", [("", dropped)]),
            *_metric("camera_up", "gauge", "1 while the camera sends images, else 0.", [("", int(not camera_lost))]),
            *_metric("latency_seconds", "histogram", "From a frame to its prediction.", latency),
            *_metric("age_seconds", "histogram", "From a frame's capture to its prediction.", age),
        ]
        if newest is not None:
            trained_on = newest.classifier.contract.trained_on
            info = _labels(
                backbone=trained_on.backbone, dataset=trained_on.dataset, provider=newest.provider, version=__version__
            )
            counts = {**dict.fromkeys((*newest.labels, UNKNOWN), 0), **predictions}
            lines += [
                *_metric("fps", "gauge", "Predictions per second, a moving average.", [("", newest.fps)]),
                *_metric("confidence", "gauge", "Confidence of the newest prediction.", [("", newest.prediction[1])]),
                *_metric(
                    "predictions_total", "counter", "Frames by predicted label.",
                    [(_labels(label=label), count) for label, count in counts.items()],
                ),
                *_metric("model_info", "gauge", "The model that runs.", [(info, 1)]),
            ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, explanation: str, samples: list[tuple[str, float]]) -> Iterator[str]:
    """Yield the lines of one metric. A sample is the end of its name, with its labels, and its value."""
    yield f"# HELP teachcam_{name} {explanation}"
    yield f"# TYPE teachcam_{name} {kind}"
    for suffix, value in samples:
        yield f"teachcam_{name}{suffix} {value}"


def _labels(**values: str) -> str:
    """Return labels in braces, with quotes, backslashes and line ends escaped."""
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in values.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
