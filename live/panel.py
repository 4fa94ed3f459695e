"""The live loop in a notebook: picture, answer, a bar for each label, and buttons that say what it is in truth.

    from teachcam.collect.camera import Camera
    from teachcam.live.classifier import Classifier
    from teachcam.live.panel import LivePanel
    LivePanel(Camera(0), Classifier("runs/latest/model.onnx"))

It runs the same loop as `python live/run.py`.
"""

from __future__ import annotations

import html
import threading
import time
from pathlib import Path

import cv2
import ipywidgets as widgets

from teachcam.collect.camera import Camera
from teachcam.errors import UserError
from teachcam.live.classifier import Classifier
from teachcam.live.feedback import CorrectionWriter
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.sinks.base import Result
from teachcam.preprocessing import resize

SHOWN_FPS = 10.0  # what a browser is sent; the loop goes at its own rate
WIDTH = 480  # pixels


class LivePanel(widgets.VBox):
    """Widgets that are a sink of the live loop. Call `close` to stop it, and then close the camera."""

    def __init__(
        self, camera: Camera, classifier: Classifier, data: Path | str = "data", smoothing: float | None = None
    ):
        """Answer what `camera` sees; corrections go into the dataset `data`, and a newer model is taken at once."""
        self._teach = CorrectionWriter(data, camera=camera.source, note="corrected live")
        self._shown = 0.0
        self._stop = threading.Event()
        self._picture = widgets.Image(format="jpeg", layout={"width": f"{WIDTH}px"})
        self._answer = widgets.HTML("<h2>&nbsp;</h2>")
        self._bars = widgets.VBox()
        self._buttons = widgets.HBox(layout={"flex_flow": "row wrap"})
        self._state, self._said = widgets.Label(), widgets.Label()
        self._newest: Result | None = None
        super().__init__(
            [
                self._picture,
                self._answer,
                self._bars,
                widgets.Label("Is it wrong? Say what this is in truth, and the picture goes into the dataset:"),
                self._buttons,
                self._said,
                self._state,
            ]
        )
        self._set_labels(classifier.contract.labels)
        self._watcher = ModelWatcher(classifier.path, classifier.provider)
        self._thread = threading.Thread(target=self._run, args=(camera, classifier, smoothing), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._stop.is_set():  # ipywidgets closes again what is garbage
            return
        self._stop.set()
        self._thread.join(5.0)
        self._watcher.close()
        super().close()

    def _run(self, camera: Camera, classifier: Classifier, smoothing: float) -> None:
        try:
            loop(camera, classifier, [_Sink(self._show)], smoothing=smoothing, watcher=self._watcher, stop=self._stop)
        except UserError as error:
            self._state.value = str(error)

    def _set_labels(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._bars.children = [
            widgets.FloatProgress(max=1.0, description=label, style={"description_width": "8em"}) for label in labels
        ]
        self._buttons.children = [widgets.Button(description=label) for label in labels]
        for button in self._buttons.children:
            button.on_click(self._on_correction)

    def _on_correction(self, button: widgets.Button) -> None:
        if self._newest is None:
            return
        try:
            count = self._teach(self._newest.frame.image, button.description)
            self._said.value = f"saved as {button.description} ({count})"
        except UserError as error:
            self._said.value = str(error)

    def _show(self, result: Result) -> bool:
        """Show a result now and then: called in the loop's thread."""
        now = time.monotonic()
        if now - self._shown < 1 / SHOWN_FPS:
            return True
        self._shown = now
        if result.labels != self._labels:
            self._set_labels(result.labels)
        image, answer = result.frame.image, result.answer
        height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
        self._newest = result
        self._picture.value = cv2.imencode(".jpg", resize(image, (height, WIDTH)))[1].tobytes()
        self._answer.value = f"<h2>{html.escape(answer.label)} {100 * answer.confidence:.0f} %</h2>"
        for bar, (label, probability) in zip(self._bars.children, answer.probabilities.items()):
            bar.value, bar.bar_style = probability, "success" if label == answer.label else ""
        self._state.value = f"{result.fps:.0f} FPS, {1000 * result.age:.0f} ms old, {result.provider}"
        return True


class _Sink:
    """The loop closes its sinks when it ends; closing a widget takes it off the page."""

    def __init__(self, show):
        self._show = show

    def __call__(self, result: Result) -> bool:
        return self._show(result)

    def close(self) -> None:
        """Nothing to give back."""
