"""Write the model that is in use as a file to take along, while the studio goes on."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Callable

from teachcam.cli import first_line
from teachcam.errors import ExportError, UserError
from teachcam.export.conversion import ExportConfig
from teachcam.export.metadata import read_metadata
from teachcam.export.targets import TARGETS
from teachcam.teach.background_trainer import BackgroundTrainer, export_checkpoint
from teachcam.teach.export_process import ExportProcess
from teachcam.teach.model_file import what_is_taught, write_taught
from teachcam.teach.teacher import Teacher

# What a person gains by each precision, and the size of the file by that of fp32 (EfficientNet-Lite0: 13.5, 6.8 and
# 3.9 MB).
GAINS = {"fp32": "exact", "fp16": "half as large, rounded a little", "int8": "small and fast, rounded more"}
SIZES = {"fp32": 1.0, "fp16": 0.504, "int8": 0.286}
CHECK_SIZE = 0.1  # MB: what the images for the self check and the head add to the backbone


class TakeAlong:
    """Writes one file at a time, in a process of its own. Any thread may call it."""

    def __init__(self, teacher: Teacher, trainer: BackgroundTrainer, out: Path):
        """Create it.

        Args:
            teacher: Teacher whose model is written, unless there is a better one.
            trainer: Trainer of the better model.
            out: The folder for the files, made when it is needed.
        """
        self._teacher, self._trainer, self._out = teacher, trainer, out
        self._lock = threading.Lock()
        self._state: dict[str, object] = {"id": None, "running": False, "choice": None, **_outcome()}
        self._export: tuple[ExportProcess, threading.Thread] | None = None  # the newest
        self._files: dict[str, Path] = {}  # by name

    def start(self, target: str, precision: str) -> str:
        """Begin to write a file.

        Args:
            target: The device that it is for.
            precision: One of those that `choices` offers for it.

        Returns:
            The id of this export, for `cancel`.

        Raises:
            UserError: There is no model yet, no such choice, or another file is being made.
        """
        if target not in TARGETS or precision not in TARGETS[target].precisions:
            raise UserError("there is no such file to take along: choose one that the page offers")
        config = ExportConfig(target, precision)
        path = self._out / ("model.onnx" if config == ExportConfig() else f"model-{target}-{precision}.onnx")
        with self._lock:
            if self._state["running"]:
                raise UserError("a file is being made: wait, or cancel it")
            export, source = self._source()
            process = ExportProcess(export, source, path, config)
            self._state = {
                "id": secrets.token_hex(4),
                "running": True,
                "choice": {"target": target, "precision": precision},
                **_outcome(text="starting"),
            }
            thread = threading.Thread(target=self._follow, args=(process, path), name="take along", daemon=True)
            self._export = process, thread
            thread.start()
            return str(self._state["id"])

    def cancel(self, id: str) -> None:
        """End an export, and wait until it has ended. Does nothing if it has ended already, or is another one."""
        with self._lock:
            if self._export is None or self._state["id"] != id or not self._state["running"]:
                return
            process, thread = self._export
            process.kill()
        thread.join()

    def path(self, name: str) -> Path:
        """Return the path of a file that was written. Raises UserError if there is none of that name."""
        if name not in self._files:
            raise UserError(f"there is no file {name[:100]}: take it along again on the page")
        return self._files[name]

    def state(self) -> dict[str, object]:
        """Return the newest export for the page, as JSON can hold it."""
        return self._state

    def choices(self) -> list[dict[str, object]]:
        """Return the devices and the precisions that the page offers, as JSON can hold them."""
        model = self._trainer.model or self._teacher.model
        megabytes = model.path.stat().st_size / 1e6
        return [
            {
                "target": name,
                "device": target.hardware,
                "precisions": [
                    {"name": name, "text": GAINS[name], "size": f"{SIZES[name] * megabytes + CHECK_SIZE:.1f} MB"}
                    for name in target.precisions
                ],
            }
            for name, target in TARGETS.items()
        ]

    def close(self) -> None:
        """End an export that is running."""
        self.cancel(str(self._state["id"]))

    def _source(self) -> tuple[Callable, object]:
        """Return the function that writes the model in use, and what it writes. Raises UserError without a model."""
        better = self._trainer.model
        if better is not None:
            return export_checkpoint, better.path.with_name("checkpoint.pt")
        return write_taught, what_is_taught(self._teacher)

    def _follow(self, process: ExportProcess, path: Path) -> None:
        """Wait for the process, and note what comes of it. Runs in a thread."""
        try:
            process.wait(lambda text, fraction: self._change(text=text, fraction=fraction))
            self._files[path.name] = path
            outcome = _outcome(_describe(path), path.name, path.stat().st_size / 1e6)
        except Exception as error:  # the page has to show it, whatever it is
            outcome = _outcome(error=_explain(error))
        self._change(running=False, **(_outcome("canceled") if process.is_killed else outcome))

    def _change(self, **changes: object) -> None:
        self._state = {**self._state, **changes}


def _outcome(text: str = "", name: str = "", size_mb: float = 0.0, error: str = "") -> dict[str, object]:
    return {"text": text, "fraction": None, "name": name, "size_mb": round(size_mb, 1), "error": error}


def _describe(path: Path) -> str:
    """Return what was measured with a file, for the page."""
    parity = read_metadata(path)[1]["validation"]["parity"]
    return f"the same label as here on {parity['same_label']} of {parity['num_images']} images"


def _explain(error: Exception) -> str:
    """Return an error for the page, without a command's options."""
    if isinstance(error, ExportError) and error.reason != str(error):
        return f"{error.reason}: choose exact (fp32), or record more images"
    return first_line(error)
