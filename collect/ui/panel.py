"""The recorder in a notebook: live picture, a button for each label, record, undo, the last frames.

    from teachcam.collect.camera import Camera
    from teachcam.collect.ui.panel import CapturePanel
    CapturePanel(Camera(0), ["thumbs_up", "thumbs_down", "none"])

It runs the same recorder as `python collect/capture.py`.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import ipywidgets as widgets
import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import check_label
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.viewfinder import count_on_disk
from teachcam.errors import UserError
from teachcam.preprocessing import resize

SHOWN_FPS = 10.0  # what a browser is sent; recording goes at its own rate
THUMBNAILS = 8


class CapturePanel(widgets.VBox):
    """Widgets around a Recorder. Call `close` to stop it, and then close the camera."""

    def __init__(self, camera: Camera, labels: list[str], data: Path | str = "data", fps: float = 5.0, note: str = ""):
        """Record `camera` under `labels` into `data`, `fps` frames a second."""
        self.camera = camera
        self.recorder = Recorder(camera, data, labels[0], fps, note)
        self._frames, _ = count_on_disk(self.recorder.data)
        self._shown = 0.0
        self._relabelling = self._closed = False
        self._picture = widgets.Image(format="jpeg", layout={"width": "480px"})
        self._labels = widgets.ToggleButtons(options=[], description="Label")
        self._record = widgets.ToggleButton(description="Record", icon="circle", button_style="danger")
        self._undo = widgets.Button(description="Undo", icon="undo")
        self._new_label = widgets.Text(placeholder="another label", continuous_update=False)
        self._status = widgets.HTML()
        self._last = widgets.HBox([widgets.Image(format="jpeg", layout={"width": "90px"}) for _ in range(THUMBNAILS)])
        super().__init__(
            [
                self._picture,
                self._labels,
                widgets.HBox([self._record, self._undo, self._new_label]),
                self._status,
                self._last,
            ]
        )
        self._set_labels([check_label(label) for label in labels])
        self._labels.observe(self._on_label, "value")
        self._record.observe(self._on_record, "value")
        self._undo.on_click(self._on_undo)
        self._new_label.observe(self._on_new_label, "value")
        camera.observe(self._on_frame, "value")
        camera.running = True

    def close(self) -> None:
        """Stop recording and showing."""
        if self._closed:  # ipywidgets closes again what is garbage
            return
        self._closed = True
        self.camera.unobserve(self._on_frame, "value")
        self.camera.running = False
        self.recorder.close()
        super().close()

    def _set_labels(self, labels: list[str]) -> None:
        chosen = self._labels.value
        options = [(f"{label} ({self._frames[label] + self.recorder.saved[label]})", label) for label in labels]
        if tuple(options) != tuple(self._labels.options):
            self._relabelling = True  # new options first choose their first one: nobody pressed that
            self._labels.options = options
            self._labels.value = chosen if chosen in labels else labels[0]
            self._relabelling = False

    def _names(self) -> list[str]:
        return [label for _, label in self._labels.options]

    def _say(self, text: str) -> None:
        self._status.value = text

    def _on_label(self, change) -> None:
        if not self._relabelling and change.new != self.recorder.label:
            self._record.value = False
            self.recorder.switch(change.new)

    def _on_record(self, change) -> None:
        try:
            if change.new:
                self.recorder.start()
                self._say(f"recording {self.recorder.label}")
            else:
                self.recorder.stop()
                self._say("")
        except UserError as error:
            self._record.value = False
            self._say(str(error))
        self._set_labels(self._names())

    def _on_undo(self, _) -> None:
        self._record.value = False
        self._say(f"took back {self.recorder.undo()} frames")
        self._set_labels(self._names())

    def _on_new_label(self, change) -> None:
        if not change.new:
            return
        try:
            label = check_label(change.new)
        except UserError as error:
            self._say(str(error))
            return
        self._set_labels([*dict.fromkeys([*self._names(), label])])
        self._labels.value = label
        self._new_label.value = ""

    def _on_frame(self, change) -> None:
        """Show a frame now and then: called in the camera's publishing thread."""
        now = time.monotonic()
        if now - self._shown < 1 / SHOWN_FPS:
            return
        self._shown = now
        self._picture.value = _jpeg(change.new, 480)
        if self.recorder.recording:
            try:
                self.recorder.check()
            except UserError as error:  # a full disk
                self._record.value = False
                self._say(str(error))
                return
            for left, right in zip(self._last.children, self._last.children[1:]):
                left.value = right.value
            self._last.children[-1].value = _jpeg(change.new, 90)

            self._set_labels(self._names())


def _jpeg(image: np.ndarray, width: int) -> bytes:
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.imencode(".jpg", resize(image, (height, width)))[1].tobytes()
