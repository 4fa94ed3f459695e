"""Count predictions for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from teachcam import __version__
from teachcam.live.prediction import UNKNOWN

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera
    from teachcam.live.sinks.base import FrameResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds: from a GPU to a small board


class Metrics(Collector):
    """The totals of a live loop since its start."""

    def __init__(self, camera: Camera):
        """Begin with zeros.

        Args:
            camera: Where the frames come from.
        """
        disable_created_metrics()  # the time of the start, once for each series
        self._camera, self._registry = camera, CollectorRegistry()
        common: dict[str, Any] = {"namespace": "teachcam", "registry": self._registry}
        self._frames = Counter("frames", "Frames that were classified.", **common)
        self._registry.register(self)
        self._latency = Histogram("latency_seconds", "From a frame to its prediction.", buckets=BUCKETS, **common)
        self._age = Histogram("age_seconds", "From a frame's capture to its prediction.", buckets=BUCKETS, **common)
        self._fps = Gauge("fps", "Predictions per second, a moving average.", **common)
        self._confidence = Gauge("confidence", "Confidence of the newest prediction.", **common)
        self._predictions = Counter("predictions", "Frames by predicted label.", ["label"], **common)
        names = ("backbone", "dataset", "provider", "version")
        self._model = Gauge("model_info", "The model that runs.", names, **common)
        self._newest: FrameResult | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield what the camera counts."""
        dropped, is_up = self._camera.dropped, not self._camera.reconnecting
        yield CounterMetricFamily("teachcam_frames_dropped", "Frames that the loop had no time for.", dropped)
        yield GaugeMetricFamily("teachcam_camera_up", "1 while the camera sends images, else 0.", int(is_up))

    def add(self, result: FrameResult) -> None:
        """Count the result of one frame. Takes microseconds."""
        self._frames.inc()
        self._latency.observe(result.latency)
        self._age.observe(result.age)
        self._fps.set(result.fps)
        self._confidence.set(result.prediction.confidence)
        self._predictions.labels(result.prediction.label).inc()
        self._newest = result

    def to_text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        if self._newest is not None:
            for label in (*self._newest.labels, UNKNOWN):
                self._predictions.labels(label)  # 0 until it is predicted
            trained_on = self._newest.classifier.contract.trained_on
            self._model.clear()  # of the model before
            self._model.labels(trained_on.backbone, trained_on.dataset, self._newest.provider, __version__).set(1)
        return generate_latest(self._registry)
