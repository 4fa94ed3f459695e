"""Which model to run, and a newer one as soon as there is one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from teachcam import cli
from teachcam.errors import ModelError
from teachcam.live.classifier import Classifier

NEWEST = Path("runs/latest")


def find_model(model: Path | None) -> Path:
    """Return the ONNX file to run: `model`, or the newest run's; a checkpoint is exported first.

    An ONNX file older than the checkpoint beside it is exported again, for the device and the precision that it had.
    """
    model = _newest_file() if model is None else model
    return _export(model) if model.suffix == ".pt" else model


def _newest_file() -> Path:
    checkpoint, model = NEWEST / "checkpoint.pt", NEWEST / "model.onnx"
    if not checkpoint.exists() and not model.exists():
        raise ModelError("no run here yet: train one with python train/finetune.py, or give --model FILE")
    if checkpoint.exists() and not (model.exists() and model.stat().st_mtime >= checkpoint.stat().st_mtime):
        return checkpoint
    return model


def _export(model: Path) -> Path:
    print(f"exporting {model}", file=sys.stderr)
    try:
        from teachcam.export.to_onnx import export, request_of
    except ImportError as error:
        raise ModelError(
            f"{model} has to be exported first, and {error.name} is not installed here: run "
            "python export/to_onnx.py where it was trained, and bring model.onnx"
        ) from None
    exported = model.with_name("model.onnx")
    export(model, exported, request=request_of(exported))
    return exported


class ModelWatcher:
    """Looks for a newer model, and loads and warms it up in a thread, while the old one goes on answering.

    A model that can't be loaded is said on stderr, and the old one stays.
    """

    def __init__(self, model: Path | None, provider: str | None = None, period: float = 0.5):
        """Watch what `find_model(model)` finds, every `period` seconds."""
        self._model, self._provider, self._period = model, provider, period
        self._seen = self._stamp()
        self._newer: Classifier | None = None
        self._exporting: subprocess.Popen | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def take(self) -> Classifier | None:
        """Return the newer model, once."""
        newer = self._newer
        if newer is not None:
            self._newer = None
        return newer

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        if self._exporting is not None:
            self._exporting.kill()
        self._thread.join(1.0)

    def _stamp(self) -> list:
        """Return what changes when a model is written: a rename gives another inode, however fast it comes."""
        paths = [self._model] if self._model else [NEWEST / "checkpoint.pt", NEWEST / "model.onnx"]
        stats = [path.stat() for path in paths if path.exists()]
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]

    def _watch(self) -> None:
        while not self._closed.wait(self._period):
            try:
                stamp = self._stamp()
                if stamp == self._seen or not stamp:
                    continue
                self._seen = stamp
                path = self._model or _newest_file()
                if path.suffix == ".pt":
                    path = self._export(path)
                self._seen = self._stamp()
                newer = Classifier(path, self._provider)
                newer.self_check()
                self._newer = newer
                print(f"took the new model: {', '.join(self._newer.contract.labels)}", file=sys.stderr, flush=True)
            except Exception as error:  # whatever it was, the next model may be a good one
                if not self._closed.is_set():
                    print(f"kept the old model: {cli.first_line(error)}", file=sys.stderr, flush=True)

    def _export(self, checkpoint: Path) -> Path:
        """Export it in a process of its own, which takes no time from the loop's and hears nothing of a Ctrl-C."""
        command = [sys.executable, str(Path(__file__)), str(checkpoint)]
        self._exporting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        said = self._exporting.communicate()[1].strip().splitlines()
        if self._exporting.returncode:
            raise ModelError(said[-1] if said else f"{checkpoint} could not be exported")
        return checkpoint.with_name("model.onnx")


if __name__ == "__main__":
    cli.run(lambda: find_model(Path(sys.argv[1])) and 0)
