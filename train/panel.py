"""Train in a notebook: choose labels and a backbone, watch the training curves, stop, resume, and see the mistakes.

    from teachcam.train.panel import TrainPanel
    TrainPanel("data")

It runs `teachcam train` in a separate process, which goes on if the notebook is closed.
"""

from __future__ import annotations

import html
import threading
from collections import Counter
from pathlib import Path

import ipywidgets as widgets

from teachcam.background_training import BackgroundTraining
from teachcam.collect.dataset import list_samples
from teachcam.errors import DatasetError, UnreadableImage, UserError
from teachcam.files import expand
from teachcam.images import read_image
from teachcam.train.engine.strategies import STRATEGIES
from teachcam.train.model.timm_backbones import LITES
from teachcam.train.report.html import data_url
from teachcam.train.report.plots import training_curves

BACKBONES = (*LITES, "squeezenet1_1", "resnet18", "mobilenet_v3_small", "alexnet")
POLL_INTERVAL = 0.5  # seconds between two checks of the run's folder
MAX_MISTAKES, IMAGE_WIDTH = 8, 130  # images shown, and their width in pixels


class TrainPanel(widgets.VBox):
    """Widgets that start, show, stop and resume a training in a separate process."""

    def __init__(self, data: Path | str = "data"):
        """Show the widgets for a dataset. Each training writes a new folder, runs/<time>.

        Args:
            data: Dataset folder.
        """
        self.data = expand(data)
        self._labels = widgets.SelectMultiple(rows=6, description="Labels")
        refresh = widgets.Button(description="Refresh", icon="refresh", tooltip="after new images were recorded")
        refresh.on_click(lambda _: self._refresh())
        self._backbone = widgets.Dropdown(options=BACKBONES, description="Backbone")
        self._strategy = widgets.Dropdown(options=[*STRATEGIES], description="Strategy")
        self._epochs = widgets.BoundedIntText(
            value=0, min=0, max=1000, description="Epochs", tooltip="0: as the strategy says; ridge has none"
        )
        self._strategy.observe(
            lambda change: setattr(self._epochs, "disabled", STRATEGIES[change.new].settings is None), "value"
        )
        self._start_button = widgets.Button(description="Train", icon="play", button_style="primary")
        self._stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
        self._resume_button = widgets.Button(description="Resume", icon="forward")
        self._progress = widgets.FloatProgress(max=1.0, layout={"width": "300px"})
        self._status = widgets.HTML()
        self._curves = widgets.HTML()
        self._mistakes = widgets.HTML()
        super().__init__(
            [
                widgets.HBox([self._labels, refresh, widgets.VBox([self._backbone, self._strategy, self._epochs])]),
                widgets.HBox([self._start_button, self._stop_button, self._resume_button, self._progress]),
                self._status,
                self._curves,
                self._mistakes,
            ]
        )
        self.training = BackgroundTraining()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._start_button.on_click(lambda _: self._start())
        self._resume_button.on_click(lambda _: self._resume())
        self._stop_button.on_click(lambda _: self._stop())
        self._enable_buttons(running=False)
        self._refresh()

    def close(self) -> None:
        """Stop watching the process. It goes on training."""
        if self._closed.is_set():  # ipywidgets closes a widget again when it is garbage-collected
            return
        self._closed.set()
        super().close()

    def _refresh(self) -> None:
        """Show the labels of the dataset, with the number of images of each. All are chosen."""
        try:
            num_images = Counter(sample.label for sample in list_samples(self.data))
            self._show("")
        except DatasetError as error:
            num_images = Counter()
            self._show(str(error))
        self._labels.options = [(f"{label} ({count})", label) for label, count in sorted(num_images.items())]
        self._labels.value = tuple(sorted(num_images))

    def _start(self) -> None:
        if len(self._labels.value) < 2:
            self._show("choose at least two labels")
            return
        arguments = ["--data", self.data, "--labels", *self._labels.value]
        arguments += ["--backbone", self._backbone.value, "--strategy", self._strategy.value]
        arguments += ["--epochs", self._epochs.value] if self._epochs.value and not self._epochs.disabled else []
        self._begin()
        self.training.start(arguments)
        self._follow()

    def _resume(self) -> None:
        try:
            self._begin()
            self.training.resume()
        except UserError as error:
            self._show(str(error))
            return
        self._follow()

    def _stop(self) -> None:
        self._stop_button.disabled = True
        self._show("stopping")
        self.training.stop()

    def _begin(self) -> None:
        self._show("starting")
        self._curves.value = self._mistakes.value = ""

    def _follow(self) -> None:
        self._enable_buttons(running=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Show the progress of the process until it ends. Runs in a thread."""
        num_shown = 0
        while self.training.running and not self._closed.wait(POLL_INTERVAL):
            num_shown = self._show_epochs(num_shown)
        if self._closed.is_set():
            return
        self._show_epochs(-1)
        if self.training.failure:
            self._show(self.training.failure)
        else:
            self._show_result()
        self._enable_buttons(running=False)

    def _show_epochs(self, num_shown: int) -> int:
        """Draw the curves of the current training if there are other epochs than `num_shown`; return their number."""
        epochs = self.training.epochs
        if epochs and len(epochs) != num_shown:
            newest = epochs[-1]
            current = [row for row in epochs if row["training"] == newest["training"]]
            self._progress.value = newest["epoch"] / newest["epochs"]
            self._show(f"{newest['training']}: epoch {newest['epoch']} of {newest['epochs']}")
            self._curves.value = _curves(current)
        return len(epochs)

    def _show_result(self) -> None:
        metrics, run = self.training.metrics, self.training.run
        if metrics is None or run is None:
            return
        accuracy, num_images = metrics["validation"]["accuracy"], metrics["validation"]["num_images"]
        result = "finished; there are too few images for validation, so the accuracy was not measured"
        if accuracy is not None:
            result = f"<b>{100 * accuracy:.1f} %</b> accuracy on {num_images} validation images"
        self._status.value = f"{result}. Report: {html.escape(str(run / 'report.html'))}"
        self._curves.value = _curves(metrics["epochs"])  # of the measured training, not of the one on all images
        figures = [_figure(self.data, mistake) for mistake in metrics["mistakes"][:MAX_MISTAKES]]
        self._mistakes.value = f'<div style="display: flex; flex-wrap: wrap; gap: 10px">{"".join(figures)}</div>'

    def _enable_buttons(self, running: bool) -> None:
        self._start_button.disabled, self._stop_button.disabled = running, not running
        self._resume_button.disabled = running or not self.training.can_resume

    def _show(self, text: str) -> None:
        self._status.value = html.escape(text)


def _curves(epochs: list[dict]) -> str:
    return f'<div style="max-width: 700px">{training_curves(epochs)}</div>'


def _figure(data: Path, mistake: dict) -> str:
    """Return the HTML of a wrong prediction: its image, true label, predicted label and confidence."""
    try:
        image = read_image(data / mistake["file"])
    except UnreadableImage:
        return ""
    labels = f"{html.escape(mistake['label'])} taken for<br>{html.escape(mistake['predicted'])}"
    return (
        f'<div style="width: {IMAGE_WIDTH}px; line-height: 1.3"><img src="{data_url(image, IMAGE_WIDTH)}">'
        f"<br>{labels}, {100 * mistake['confidence']:.0f} %</div>"
    )
