"""The live loop in a notebook: the image, the prediction, a bar for each label, and buttons for corrections.

    from teachcam.collect.camera import Camera
        from teachcam.live.panel import LivePanel
    LivePanel(Camera(0), Classifier("runs/latest/model.onnx"))

It runs the same loop as `python live/run.py`.
"""

from __future__ import annotations

import atexit
import html
import threading
import time
from pathlib import Path
from typing import Callable

import ipywidgets as widgets

from teachcam.collect.camera import Camera
from teachcam.errors import UserError
from teachcam.images import encode_jpeg
from teachcam.live.feedback import CorrectionWriter
from teachcam.live.loop import loop
from teachcam.live.model_watcher import ModelWatcher
from teachcam.live.prediction import Model, ModelSource
from teachcam.live.sinks.base import FrameResult
from teachcam.preprocessing import resize

DISPLAY_FPS = 10.0  # images per second that the browser gets; the loop runs at its own rate
WIDTH = 480  # pixels


class LivePanel(widgets.VBox):
    """Widgets that show the live loop. Call `close` to stop it, and close the camera after that."""

    def __init__(
        self,
        camera: Camera,
        classifier: Model,
        data: Path | str = "data",
        smoothing: float | None = None,
        watcher: ModelSource | None = None,
        show_image: bool = True,
        on_correction: Callable[[], object] | None = None,
    ):
        """Start the loop in a thread.

        Args:
            camera: An open camera.
            classifier: The model to start with.
            data: The dataset's folder, where corrections are saved.
            smoothing: Seconds over which predictions are averaged. 0 turns it off, None means the default.
            watcher: Brings newer models. By default, a newer file at the model's path is loaded at once.
            show_image: Whether to show the camera's image.
            on_correction: Called after each correction that is saved.
        """
        self._show_image, self._on_saved = show_image, on_correction or (lambda: None)
        self._correct = CorrectionWriter(data, note="corrected live", **camera.metadata)
        self._shown = 0.0  # seconds: when the last image was shown
        self._stop = threading.Event()
        self._picture = widgets.Image(format="jpeg", layout={"width": f"{WIDTH}px"})
        self._prediction = widgets.HTML("<h2>&nbsp;</h2>")
        self._bars = widgets.VBox()
        self._buttons = widgets.HBox(layout={"flex_flow": "row wrap"})
        self._status, self._message = widgets.Label(), widgets.Label()
        self._newest: FrameResult | None = None
        super().__init__(
            [
                *([self._picture] if show_image else []),
                self._prediction,
                self._bars,
                widgets.Label("Wrong? Click the right label to save this image."),
                self._buttons,
                self._message,
                self._status,
            ]
        )
        self._set_labels(classifier.contract.labels)
        self._own_watcher = None if watcher else ModelWatcher(classifier.path, classifier.provider)
        self._watcher = watcher or self._own_watcher
        self._thread = threading.Thread(target=self._run, args=(camera, classifier, smoothing), daemon=True)
        self._thread.start()
        atexit.register(self.close)  # Python aborts if it ends while the thread is inside OpenCV

    def close(self) -> None:
        """Stop the loop and remove the widgets."""
        if self._stop.is_set():  # ipywidgets calls close again on garbage collection
            return
        atexit.unregister(self.close)
        self._stop.set()
        self._thread.join(5.0)
        if self._own_watcher is not None:
            self._own_watcher.close()
        super().close()

    def _run(self, camera: Camera, classifier: Model, smoothing: float | None) -> None:
        try:
            loop(camera, classifier, [_PanelSink(self)], smoothing=smoothing, watcher=self._watcher, stop=self._stop)
        except UserError as error:
            self._status.value = str(error)

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
            count = self._correct(self._newest.frame.image, button.description)
            self._message.value = f"saved as {button.description} ({count} so far)"
            self._on_saved()
        except UserError as error:
            self._message.value = f"not saved: {error}"

    def _show(self, result: FrameResult) -> None:
        """Show a result, at most DISPLAY_FPS times a second. The loop's thread calls this."""
        now = time.monotonic()
        if now - self._shown < 1 / DISPLAY_FPS:
            return
        self._shown = now
        if result.labels != self._labels:
            self._set_labels(result.labels)
        self._newest, prediction = result, result.prediction
        if self._show_image:
            image = result.frame.image
            height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
            self._picture.value = encode_jpeg(resize(image, (height, WIDTH)))
        self._prediction.value = f"<h2>{html.escape(prediction.label)} {100 * prediction.confidence:.0f} %</h2>"
        for bar, (label, probability) in zip(self._bars.children, prediction.probabilities.items()):
            bar.value, bar.bar_style = probability, "success" if label == prediction.label else ""
        self._status.value = f"{result.fps:.0f} FPS, {1000 * result.age:.0f} ms old, {result.provider}"


class _PanelSink:
    """Passes results to a panel. It is separate because the loop closes its sinks, which would remove the panel."""

    def __init__(self, panel: LivePanel):
        self._panel = panel

    def __call__(self, result: FrameResult) -> bool:
        self._panel._show(result)
        return True

    def close(self) -> None:
        pass
