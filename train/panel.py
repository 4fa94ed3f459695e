"""Training in a notebook: choose labels and backbone, train with live curves, stop, resume, see the mistakes.

    from teachcam.train.panel import TrainPanel
    TrainPanel("data")

It runs `python train/finetune.py` as a process of its own: a training goes on if the notebook is closed.
"""

from __future__ import annotations

import base64
import html
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path

import cv2
import ipywidgets as widgets

from teachcam.collect.dataset import read_items
from teachcam.errors import UnreadableImage, UserError
from teachcam.images import read_image
from teachcam.train.config import STRATEGIES
from teachcam.train.engine.progress import read_epochs
from teachcam.train.report.plots import curves
from teachcam.train.run import STATE, unfinished

BACKBONES = ("squeezenet1_1", "resnet18", "mobilenet_v3_small", "alexnet", "efficientnet_b0")
LOG = "log.txt"  # in the run's folder: what the training said
INTERVAL = 0.5  # seconds between two looks at the run's folder
MISTAKES, SIDE = 8, 130  # pictures shown, and their width in pixels


class TrainPanel(widgets.VBox):
    """Widgets around a process that trains. `close` stops watching it, not the training."""

    def __init__(self, data: Path | str = "data"):
        """Train on the dataset `data`, into runs/<time>. Raises DatasetError where there is none."""
        self.data = Path(data)
        frames = Counter(item.label for item in read_items(self.data))
        options = [(f"{label} ({count})", label) for label, count in sorted(frames.items())]
        self._labels = widgets.SelectMultiple(
            options=options, value=tuple(sorted(frames)), rows=min(8, len(options)), description="Labels"
        )
        self._backbone = widgets.Dropdown(options=BACKBONES, description="Backbone")
        self._strategy = widgets.Dropdown(options=["auto", *STRATEGIES], description="Strategy")
        self._epochs = widgets.BoundedIntText(value=0, min=0, max=1000, description="Epochs", tooltip="0: its own")
        self._train = widgets.Button(description="Train", icon="play", button_style="primary")
        self._stop = widgets.Button(description="Stop", icon="stop", disabled=True)
        self._resume = widgets.Button(description="Resume", icon="forward")
        self._bar = widgets.FloatProgress(max=1.0, layout={"width": "300px"})
        self._said = widgets.HTML()
        self._curves = widgets.HTML()
        self._mistakes = widgets.HTML()
        super().__init__(
            [
                widgets.HBox([self._labels, widgets.VBox([self._backbone, self._strategy, self._epochs])]),
                widgets.HBox([self._train, self._stop, self._resume, self._bar]),
                self._said,
                self._curves,
                self._mistakes,
            ]
        )
        self.run: Path | None = None
        self._process: subprocess.Popen | None = None
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        self._train.on_click(lambda _: self._start())
        self._resume.on_click(lambda _: self._go_on())
        self._stop.on_click(lambda _: self._interrupt())
        self._show_state(running=False)

    def close(self) -> None:
        """Stop watching; a training that runs goes on."""
        if self._closed.is_set():  # ipywidgets closes again what is garbage
            return
        self._closed.set()
        super().close()

    def _start(self) -> None:
        if len(self._labels.value) < 2:
            self._say("choose two labels at least")
            return
        self.run = Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        asked = ["--data", self.data, "--out", self.run, "--labels", *self._labels.value]
        asked += ["--backbone", self._backbone.value, "--strategy", self._strategy.value]
        self._run([*asked, *(["--epochs", self._epochs.value] if self._epochs.value else [])])

    def _go_on(self) -> None:
        try:
            self.run = unfinished(None).out
        except UserError as error:
            self._say(str(error))
            return
        self._run(["--resume", self.run])

    def _interrupt(self) -> None:
        self._stop.disabled = True
        self._say("stopping")
        self._process.send_signal(signal.SIGINT)

    def _run(self, arguments: list) -> None:
        self._say("starting")
        self._curves.value = self._mistakes.value = ""
        self._show_state(running=True)
        command = [sys.executable, str(Path(__file__).with_name("finetune.py")), *map(str, arguments)]
        self.run.mkdir(parents=True, exist_ok=True)
        # In a session of its own, and talking to a file: it goes on when the notebook's kernel is interrupted, or gone.
        with (self.run / LOG).open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Show what the process says and writes, until it ends: in a thread."""
        shown = 0
        while self._process.poll() is None and not self._closed.wait(INTERVAL):
            shown = self._show_epochs(shown)
        if self._closed.is_set():
            return
        self._show_epochs(-1)
        code = self._process.returncode
        if code == 0:
            self._show_result()
        elif code in (130, -signal.SIGINT):
            self._say("stopped: Resume goes on from its last epoch")
        else:
            lines = (self.run / LOG).read_text(errors="replace").split("\n")
            self._say(next((line for line in reversed(lines) if line.strip()), f"ended with {code}"))
        self._show_state(running=False)

    def _show_epochs(self, before: int) -> int:
        """Draw the curves of the training under way, if there is a new epoch; return how many epochs there are."""
        epochs = read_epochs(self.run)
        if epochs and len(epochs) != before:
            newest = epochs[-1]
            own = [line for line in epochs if line["training"] == newest["training"]]
            self._bar.value = newest["epoch"] / newest["epochs"]
            self._say(f"{newest['training']}: epoch {newest['epoch']} of {newest['epochs']}")
            self._curves.value = _drawn(own)
        return len(epochs)

    def _show_result(self) -> None:
        metrics = json.loads((self.run / "metrics.json").read_text())
        accuracy = metrics["validation"]["accuracy"]
        said = "done; there was nothing to hold out, so nothing was measured"
        if accuracy is not None:
            said = f"<b>{100 * accuracy:.1f} %</b> of {metrics['validation']['frames']} held-out frames are right"
        self._said.value = f"{said}. The report: {html.escape(str(self.run / 'report.html'))}"
        self._curves.value = _drawn(metrics["epochs"])  # those that were measured, not of the training on all
        pictures = [_figure(self.data, mistake) for mistake in metrics["mistakes"][:MISTAKES]]
        self._mistakes.value = f'<div style="display: flex; flex-wrap: wrap; gap: 10px">{"".join(pictures)}</div>'

    def _show_state(self, running: bool) -> None:
        self._train.disabled, self._stop.disabled = running, not running
        self._resume.disabled = running or not list(Path("runs").glob(f"*/{STATE}/options.json"))

    def _say(self, text: str) -> None:
        self._said.value = html.escape(text)


def _drawn(epochs: list[dict]) -> str:
    return f'<div style="max-width: 700px">{curves(epochs)}</div>'


def _figure(data: Path, mistake: dict) -> str:
    """Return a mistake as markup: its picture, and what it was taken for."""
    try:
        image = read_image(data / mistake["file"])
    except UnreadableImage:
        return ""
    height = min(max(1, round(SIDE * image.shape[0] / image.shape[1])), 2 * SIDE)
    image = cv2.resize(image, (SIDE, height), interpolation=cv2.INTER_AREA)
    picture = base64.b64encode(cv2.imencode(".jpg", image)[1]).decode()
    text = f"{html.escape(mistake['true'])} taken for<br>{html.escape(mistake['answer'])}"
    return (
        f'<div style="width: {SIDE}px; line-height: 1.3"><img src="data:image/jpeg;base64,{picture}">'
        f"<br>{text}, {100 * mistake['confidence']:.0f} %</div>"
    )
