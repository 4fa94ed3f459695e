"""Find the model to run, and load a newer one in the background as soon as it is written."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

from teachcam import cli
from teachcam.errors import ModelError
from teachcam.live.classifier import Classifier
from teachcam.runs import LATEST, latest_run

logger = logging.getLogger("teachcam.live.model_watcher")  # not __name__: this file also runs as a script, see _export


def find_model(model: Path | None) -> Path:
    """Return the ONNX file to run, and export a checkpoint first.

    An ONNX file that is older than the checkpoint beside it is exported again with the same target and precision.

    Args:
        model: An ONNX file or a checkpoint. By default the newest run's.

    Raises:
        ModelError: There is no run, or a checkpoint can't be exported because a package is missing.
        ExportError: The checkpoint can't be exported.
    """
    model = _newest_file() if model is None else model
    return _export(model) if model.suffix == ".pt" else model


def describe_file(model: Path) -> str:
    """Return where a model file is and when it was written, and whether it is a newest run outside runs/."""
    file = model.resolve()
    shown = file.relative_to(Path.cwd()) if Path.cwd() in file.parents else file
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
    is_newest = file.parent == latest_run().resolve()
    outside = is_newest and LATEST.parent.resolve() not in file.parents
    return f"{shown} (written {written}{', by the newest run, which is not in runs/' if outside else ''})"


def _newest_file() -> Path:
    """Return the newest run's ONNX file, or its checkpoint if that is newer."""
    checkpoint, model = latest_run() / "checkpoint.pt", latest_run() / "model.onnx"
    if not checkpoint.exists() and not model.exists():
        raise ModelError("no run here yet: train one with teachcam train, or give --model FILE")
    if checkpoint.exists() and not (model.exists() and model.stat().st_mtime >= checkpoint.stat().st_mtime):
        return checkpoint
    return model


def _export(checkpoint: Path) -> Path:
    """Export a checkpoint to model.onnx beside it, and return that path."""
    logger.info(f"exporting {checkpoint}")
    try:
        from teachcam.export.from_torch.exporter import (  # needs torch, which a device may not have
            export,
            read_export_config,
        )
    except ImportError as error:
        raise ModelError(
            f"{checkpoint} has to be exported first, and {error.name} is not installed here: run "
            "teachcam export on the machine that trained it, and copy model.onnx here"
        ) from None
    model = checkpoint.with_name("model.onnx")
    export(checkpoint, model, config=read_export_config(model))
    return model


class ModelWatcher:
    """Watches for a newer model in a thread, and loads and warms it up while the old one continues.

    A model that can't be loaded, or that fails its self check, is logged and ignored.
    """

    def __init__(self, model: Path | None, provider: str | None = None, period: float = 0.5):
        """Start to watch.

        Args:
            model: The ONNX file or checkpoint to watch. By default those of the newest run.
            provider: The execution provider for newer models. By default the first that works.
            period: Seconds from one look at the files to the next.
        """
        self._model, self._provider, self._period = model, provider, period
        self._seen = self._file_states()
        self._newer: Classifier | None = None
        self._export_process: subprocess.Popen | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model watcher", daemon=True)
        self._thread.start()

    def take(self) -> Classifier | None:
        """Return a newer model if one was loaded since the last call."""
        newer = self._newer
        if newer is not None:
            self._newer = None
        return newer

    def close(self) -> None:
        """Stop watching, and stop an export that is running."""
        self._closed.set()
        if self._export_process is not None:
            self._export_process.kill()
        self._thread.join(1.0)

    def _file_states(self) -> list[tuple[int, int, int]]:
        """Return what changes when a model is written. Each rename gives a new inode, even within one clock tick."""
        paths = [self._model] if self._model else [latest_run() / "checkpoint.pt", latest_run() / "model.onnx"]
        stats = [path.stat() for path in paths if path.exists()]
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]

    def _watch(self) -> None:
        while not self._closed.wait(self._period):
            try:
                states = self._file_states()
                if states == self._seen or not states:
                    continue
                self._seen = states
                path = self._model or _newest_file()
                if path.suffix == ".pt":
                    path = self._export_in_process(path)
                self._seen = self._file_states()
                newer = Classifier(path, self._provider)
                newer.self_check()
                self._newer = newer
                logger.info(f"took the new model: {', '.join(newer.contract.labels)}")
            except Exception as error:  # any error: the thread must live on, because the next model may be good
                if not self._closed.is_set():
                    logger.warning(f"kept the old model: {cli.first_line(error)}")

    def _export_in_process(self, checkpoint: Path) -> Path:
        """Export in a process of its own: it does not slow the loop down, and Ctrl-C does not interrupt it halfway."""
        command = [sys.executable, str(Path(__file__)), str(checkpoint)]
        self._export_process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
        )
        messages = self._export_process.communicate()[1].strip().splitlines()
        code = self._export_process.returncode
        if code:
            was_killed = code < 0 or not messages
            raise ModelError(f"{checkpoint}: its export was killed (exit code {code})" if was_killed else messages[-1])
        return checkpoint.with_name("model.onnx")


if __name__ == "__main__":
    cli.run(lambda: 0 if find_model(Path(sys.argv[1])) else 2)
