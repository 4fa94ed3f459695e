"""Teach in a notebook: record labels, see the answers at once, and take the model along. It needs no PyTorch.

    from teachcam.cli import first_line
from teachcam.cli import first_line
from teachcam.collect.camera import Camera
    from teachcam.live.teaching.panel import TeachPanel
    TeachPanel(Camera(0), ["thumbs_up", "thumbs_down", "none"])

It is the panel that records, and the panel of the live loop, with a Teacher between them.
"""

from __future__ import annotations

import atexit
import html
import threading
import time
from pathlib import Path

import ipywidgets as widgets

from teachcam.cli import first_line
from teachcam.collect.camera import Camera
from teachcam.collect.ui.panel import CapturePanel
from teachcam.errors import UserError
from teachcam.files import expand
from teachcam.live.panel import LivePanel
from teachcam.live.teaching.backbone import Backbone
from teachcam.live.teaching.model_file import save_model
from teachcam.live.teaching.teacher import FOLDER, Teacher

POLL_INTERVAL = 0.5  # seconds between two looks at the progress


class TeachPanel(widgets.HBox):
    """Widgets that teach a camera. Call `close` to stop, and close the camera after that.

    Attributes:
        teacher: Learns from the dataset.
        capture: The panel that records.
        live: The panel that answers.
    """

    def __init__(self, camera: Camera, labels: list[str], data: Path | str = "data", provider: str | None = None):
        """Begin with the images of the dataset.

        Args:
            camera: An open live camera.
            labels: The labels to choose from. More can be added in the panel.
            data: The dataset's folder.
            provider: What runs the backbone: tensorrt, cuda or cpu. By default the first of them that works.
        """
        data = expand(data)
        self.teacher = Teacher(data, Backbone(data / FOLDER, provider))
        self.capture = CapturePanel(camera, labels, data, on_change=self.teacher.refresh)
        self.live = LivePanel(
            camera,
            self.teacher.model,
            data,
            watcher=self.teacher,
            show_image=False,
            on_correction=self.teacher.refresh,
        )
        self._progress, self._saved = widgets.HTML(), widgets.Label()
        save = widgets.Button(description="Save the model", icon="download")
        save.on_click(lambda _: self._on_save())
        answer = widgets.VBox([self.live, self._progress, save, self._saved], layout={"width": "420px"})
        super().__init__([self.capture, answer], layout={"flex_flow": "row wrap"})
        self._closed = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._follower.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Stop recording, learning and answering, and remove the widgets."""
        if self._closed.is_set():  # ipywidgets calls close again on garbage collection
            return
        atexit.unregister(self.close)
        self._closed.set()
        self._follower.join()
        self.live.close()
        self.capture.close()
        self.teacher.close()
        super().close()

    def _follow(self) -> None:
        """Show what has been learned. Runs in a thread."""
        while not self._closed.wait(POLL_INTERVAL):
            error, progress = self.teacher.error, self.teacher.progress
            text = progress.describe() if error is None else f"teaching has ended: {first_line(error)}"
            self._progress.value = html.escape(text)

    def _on_save(self) -> None:
        path = Path("runs") / time.strftime("%Y%m%d-%H%M%S") / "model.onnx"
        try:
            save_model(path, self.teacher)
            self._saved.value = f"saved {path}"
        except UserError as error:
            self._saved.value = str(error)
