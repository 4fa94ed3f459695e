"""Export in a process of its own: it can be killed at any time, and it takes no time from the live loop's threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable

from teachcam.cli import first_line
from teachcam.errors import ExportError, UserError
from teachcam.export.conversion import ExportConfig
from teachcam.export.metadata import publish
from teachcam.export.verify import OnProgress
from teachcam.live.sinks.base import lower_thread_priority

CONTEXT = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang


class ExportProcess:
    """One export. `kill` ends it; then, and if it fails, no file is written.

    Attributes:
        is_killed: Whether `kill` was called.
    """

    def __init__(self, export: Callable, source: object, out: Path, config: ExportConfig):
        """Start it.

        Args:
            export: Writes the file: `export(source, out, config, on_progress)`. A function of a module.
            source: What it exports. It is sent to the process.
            out: The file, which is replaced in `wait`.
            config: Target and precision.
        """
        self._out = out
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "model.onnx"
        self._reader, writer = CONTEXT.Pipe(duplex=False)
        arguments = (writer, export, source, self._file, config)
        self.is_killed = False
        self._process = CONTEXT.Process(target=_export, args=arguments, name="export", daemon=True)
        self._process.start()
        writer.close()  # the process has its own: when that ends, the reader notices

    def wait(self, on_progress: OnProgress | None = None) -> None:
        """Wait until the file is written.

        Args:
            on_progress: Called with what is done, in plain words, and the part of that, 0 to 1.

        Raises:
            UserError: The export failed, or was killed.
        """
        with self._folder, self._reader:
            try:
                result: object = ()
                while isinstance(result, tuple):
                    if result and on_progress is not None:
                        on_progress(*result)
                    result = self._reader.recv()
            except (EOFError, OSError):
                self._process.join()
                code = self._process.exitcode
                result = ExportError(f"the export was ended (exit code {code}): is the memory full?")
            finally:
                self._process.kill()
                self._process.join()
            if self.is_killed:  # also if it was ready just then
                raise ExportError("the export was ended")
            if isinstance(result, UserError):
                raise result
            publish(self._file, self._out)

    def kill(self) -> None:
        """End the process, at any time. No file is written after that."""
        self.is_killed = True
        self._process.kill()


def _export(connection: Connection, export: Callable, source: object, file: Path, config: ExportConfig) -> None:
    """Write the file. Sends tuples of text and part while it works, then an error, or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process, too; the other one then kills it
    lower_thread_priority(10)  # not 19: beside other busy programs it would take minutes
    tempfile.tempdir = str(file.parent)  # so that nothing is left of a process that is killed
    null = os.open(os.devnull, os.O_WRONLY)  # PyTorch prints what it does
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        export(source, file, config, lambda *progress: connection.send(progress))
        connection.send(None)
    except UserError as error:
        connection.send(error)
    except Exception as error:  # the page has to show it, whatever it is
        connection.send(ExportError(f"the export failed: {type(error).__name__}: {first_line(error)}"))
