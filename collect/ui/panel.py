"""The recorder in a notebook: live image, a button for each label, record, undo, the place, the last frames.

    from teachcam.collect.camera import Camera
    from teachcam.collect.ui.panel import CapturePanel
    CapturePanel(Camera(0), ["thumbs_up", "thumbs_down", "none"])

It uses the same recorder as `teachcam capture`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import ipywidgets as widgets
import numpy as np

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import check_labels, existing_labels, last_place
from teachcam.collect.names import check_label
from teachcam.collect.recorder import Recorder
from teachcam.collect.ui.viewfinder import count_on_disk, describe_undo
from teachcam.errors import UserError
from teachcam.images import encode_jpeg
from teachcam.preprocessing import resize

DISPLAY_FPS = 10.0  # images per second that the browser gets; the recorder has its own rate
WIDTH, THUMBNAIL_WIDTH = 480, 90  # pixels
NUM_THUMBNAILS = 8


class CapturePanel(widgets.VBox):
    """Widgets around a Recorder. Call `close` to stop recording, and close the camera after that.

    Attributes:
        camera: The camera that is shown and recorded.
        recorder: The recorder.
    """

    def __init__(
        self,
        camera: Camera,
        labels: list[str],
        data: Path | str = "data",
        fps: float = 5.0,
        note: str = "",
    ):
        """Show the camera, ready to record.

        Args:
            camera: An open camera.
            labels: The labels to choose from. More can be added in the panel.
            data: The dataset's folder.
            fps: Frames per second to record. 0 records every frame.
            note: Stored with each session.
        """
        self.camera = camera
        place = last_place(data)
        self.recorder = Recorder(camera, data, labels[0], fps, note, place)
        self._frames_before, _ = count_on_disk(self.recorder.data)
        self._shown = 0.0  # seconds: when the last image was shown
        self._setting_labels = self._closed = False
        self._picture = widgets.Image(format="jpeg", layout={"width": f"{WIDTH}px"})
        self._labels = widgets.ToggleButtons(options=[], description="Label")
        self._record = widgets.ToggleButton(description="Record", icon="circle", button_style="danger")
        self._undo = widgets.Button(description="Undo", icon="undo")
        self._new_label = widgets.Text(placeholder="add a label", continuous_update=False)
        self._place = widgets.Text(value=place, placeholder="kitchen", description="Place", continuous_update=False)
        self._message = widgets.Label()
        self._thumbnails = widgets.HBox(
            [widgets.Image(format="jpeg", layout={"width": f"{THUMBNAIL_WIDTH}px"}) for _ in range(NUM_THUMBNAILS)]
        )
        super().__init__(
            [
                self._picture,
                self._labels,
                widgets.HBox([self._record, self._undo]),
                widgets.HBox([self._new_label, self._place]),
                self._message,
                self._thumbnails,
            ]
        )
        self._set_labels(check_labels(data, labels))
        self._labels.observe(self._on_label, "value")
        self._record.observe(self._on_record, "value")
        self._undo.on_click(self._on_undo)
        self._new_label.observe(self._on_new_label, "value")
        self._place.observe(self._on_place, "value")
        camera.observe(self._on_frame, "value")
        camera.running = True

    def close(self) -> None:
        """Stop recording and remove the widgets."""
        if self._closed:  # ipywidgets calls close again on garbage collection
            return
        self._closed = True
        self.camera.unobserve(self._on_frame, "value")
        self.camera.running = False
        self.recorder.close()
        super().close()

    def _set_labels(self, labels: list[str]) -> None:
        """Show these labels, with the number of frames of each."""
        chosen = self._labels.value
        options = [(f"{label} ({self._frames_before[label] + self.recorder.saved[label]})", label) for label in labels]
        if tuple(options) != tuple(self._labels.options):
            self._setting_labels = True  # new options choose the first one by themselves: that is not a click
            self._labels.options = options
            self._labels.value = chosen if chosen in labels else labels[0]
            self._setting_labels = False

    def _label_names(self) -> list[str]:
        return [label for _, label in self._labels.options]

    def _on_label(self, change) -> None:
        if not self._setting_labels and change.new != self.recorder.label:
            self._record.value = False
            with self._errors_as_message():
                self.recorder.set_label(change.new)

    def _on_record(self, change) -> None:
        with self._errors_as_message():
            if change.new:
                self.recorder.start()
                self._message.value = f"recording {self.recorder.label}"
            else:
                self.recorder.stop()
                self._message.value = ""
        self._set_labels(self._label_names())

    def _on_undo(self, _) -> None:
        self._record.value = False
        with self._errors_as_message():
            self._message.value = describe_undo(self.recorder.undo())
        self._set_labels(self._label_names())

    def _on_place(self, change) -> None:
        self._record.value = False
        with self._errors_as_message():
            self.recorder.set_place(change.new)
            self._message.value = f"recording in {change.new} from now on" if change.new else ""

    @contextmanager
    def _errors_as_message(self) -> Iterator[None]:
        """Show an error, for example of a full disk, in place of raising it, and stop recording."""
        try:
            yield
        except UserError as error:
            self._record.value = False
            self._message.value = str(error)

    def _on_new_label(self, change) -> None:
        if not change.new:
            return
        try:
            label = check_label(change.new.strip(), [*existing_labels(self.recorder.data), *self._label_names()])
        except UserError as error:
            self._message.value = str(error)
            return
        self._set_labels([*dict.fromkeys([*self._label_names(), label])])
        self._labels.value = label
        self._new_label.value = ""

    def _on_frame(self, change) -> None:
        """Show a frame, at most DISPLAY_FPS times a second. A thread of the camera calls this."""
        now = time.monotonic()
        if now - self._shown < 1 / DISPLAY_FPS:
            return
        self._shown = now
        self._picture.value = _encode(change.new, WIDTH)
        if not self.recorder.recording:
            return
        with self._errors_as_message():
            self.recorder.check_writer()
        if not self.recorder.recording:
            return
        images = self._thumbnails.children
        for left, right in zip(images, images[1:]):
            left.value = right.value
        images[-1].value = _encode(change.new, THUMBNAIL_WIDTH)
        self._set_labels(self._label_names())


def _encode(image: np.ndarray, width: int) -> bytes:
    """Return a JPEG of this width."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return encode_jpeg(resize(image, (height, width)))
