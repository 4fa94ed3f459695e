"""Train a model in the background, and use it if it is more accurate than the taught one."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path
from typing import Callable

from teachcam.background_training import BackgroundTraining
from teachcam.cli import first_line
from teachcam.errors import UserError
from teachcam.export.conversion import ExportConfig
from teachcam.export.verify import OnProgress
from teachcam.live.classifier import Classifier
from teachcam.teach.export_process import ExportProcess
from teachcam.teach.teacher import Teacher

POLL_INTERVAL = 0.5  # seconds between two looks at the process


class BackgroundTrainer:
    """Trains on the images of a teacher, in a process of its own.

    Attributes:
        model: The trained model, if it is more accurate than the taught one. None after the images have changed.
    """

    def __init__(self, data: Path, teacher: Teacher):
        """Create it. Nothing runs before `train` or `resume`.

        Args:
            data: The dataset's folder.
            teacher: Teacher of the same dataset.
        """
        self.model: Classifier | None = None
        self._data, self._teacher = data, teacher
        self._training = BackgroundTraining()
        self._can_resume = self._training.can_resume
        self._text = ""
        self._impossible = why_no_training()

    def train(self) -> None:
        """Start a training. Raises UserError if that is not possible here, or one is running."""
        self._begin(lambda: self._training.start(["--data", self._data.resolve()]))

    def resume(self) -> None:
        """Continue an interrupted training. Raises UserError."""
        self._begin(self._training.resume)

    def stop(self) -> None:
        """Interrupt the training. It can be resumed."""
        self._training.stop()

    def state(self) -> dict[str, object]:
        """Return what the page shows, as JSON can hold it."""
        running = self._training.running
        epochs = self._training.epochs if running else []
        text = self._text
        if epochs:
            text = _describe_epoch(**epochs[-1])
        return {
            "impossible": self._impossible,
            "running": running,
            "text": text,
            "can_resume": self._can_resume and not running,
            "curve": [epoch["validation_accuracy"] for epoch in epochs],
        }

    def _begin(self, start: Callable[[], object]) -> None:
        if self._impossible:
            raise UserError(self._impossible)
        if self._training.running:
            raise UserError("a training is running")
        start()
        self._text = "starting"
        threading.Thread(target=self._follow, name="training", daemon=True).start()

    def _follow(self) -> None:
        """Wait for the process to end, and use its result. Runs in a thread."""
        while self._training.running:
            time.sleep(POLL_INTERVAL)
        self._can_resume = self._training.can_resume
        try:
            self._text = self._use_if_better()
        except Exception as error:  # the page has to show it, whatever it is
            self._text = first_line(error)

    def _use_if_better(self) -> str:
        """Export the trained model and use it, if it is more accurate than the taught one. Returns a text about it."""
        run, metrics = self._training.run, self._training.metrics
        if run is None or metrics is None:
            return self._training.failure
        accuracy, taught = metrics["validation"]["accuracy"], self._teacher.progress.accuracy
        if accuracy is not None and taught is not None and accuracy <= taught:
            return f"kept the one before: it is {100 * taught:.1f} % right, and the new one {100 * accuracy:.1f} %"
        self._text = "trained; testing it"
        ExportProcess(export_checkpoint, run / "checkpoint.pt", run / "model.onnx", ExportConfig()).wait()
        self.model = Classifier(run / "model.onnx")
        text = "the new model is in use"
        if accuracy is None or taught is None:
            return text
        return f"{text}: it is {100 * accuracy:.1f} % right, and the one before {100 * taught:.1f} %"


def _describe_epoch(training: str, epoch: int, epochs: int = 0, **_: object) -> str:
    """Return how far a training is, for people who do not know the names of its parts."""
    if training in ("ridge", "features"):
        return f"looking at the images: {epoch} of {epochs} times"
    network = training.partition("finetune ")[2]  # such as "2 of 3"
    return f"training{network and ' network '}{network}: {epoch} of {epochs} passes over the images"


def export_checkpoint(checkpoint: Path, out: Path, config: ExportConfig, on_progress: OnProgress | None = None) -> None:
    """Export a trained model, in a process that imports torch, which the live loop does not. Raises ExportError."""
    from teachcam.export.from_torch.exporter import export

    export(checkpoint, out, None, config, on_progress)


def why_no_training() -> str:
    """Return the reason why training is not possible on this device, or "" if it is."""
    if sys.version_info < (3, 10):
        return "training needs Python 3.10 or newer: copy the folder data to another machine, and train there"
    missing = [name for name in ("torch", "torchvision", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"training needs {', '.join(missing)}: in the project's folder, run pip install '.[train]', or copy the "
            "folder data to another machine, and train there"
        )
    return ""
