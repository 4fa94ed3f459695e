"""Train in a process of its own, and read its progress from the run's folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from teachcam.errors import TrainingError
from teachcam.runs import interrupted_runs, read_epochs

LOG = "log.txt"  # in the run's folder: the output of the process


class BackgroundTraining:
    """A process that runs `teachcam train`. It goes on if this program ends.

    Attributes:
        run: The folder of the run, or None before the first.
    """

    def __init__(self) -> None:
        """Create it. Nothing runs before `start` or `resume`."""
        self.run: Path | None = None
        self._process: subprocess.Popen | None = None
        self._stopped = False

    def start(self, arguments: list) -> None:
        """Begin a new run with these arguments of the command line."""
        run = Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        self._start(run, [*arguments, "--out", run])

    def resume(self) -> None:
        """Continue the newest interrupted run. Raises TrainingError if there is none."""
        if not (runs := interrupted_runs()):
            raise TrainingError("no run in runs/ was interrupted")
        self._start(runs[-1], ["--resume", runs[-1]])

    def stop(self) -> None:
        """Interrupt the process. It ends after it has saved its state."""
        if self._process is None:
            return
        self._stopped = True
        if sys.platform == "win32":  # which can't interrupt one process: the last finished epoch was saved before
            self._process.terminate()
        else:
            self._process.send_signal(signal.SIGINT)

    def _start(self, run: Path, arguments: list) -> None:
        self.run, self._stopped = run, False
        command = [sys.executable, "-m", "teachcam", "train", *map(str, arguments)]
        run.mkdir(parents=True, exist_ok=True)
        # A new process session and output to a file: the process goes on if this one is interrupted or ends.
        with (run / LOG).open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def can_resume(self) -> bool:
        """True if an interrupted run can be continued."""
        return not self.running and bool(interrupted_runs())

    @property
    def epochs(self) -> list[dict]:
        """The metrics of all epochs so far."""
        return read_epochs(self.run) if self.run else []

    @property
    def failure(self) -> str:
        """The reason why the process ended without a result, in one line. "" if there is none."""
        code = None if self._process is None else self._process.poll()
        if self.run is None or code is None or code == 0:
            return ""
        if self._stopped or code in (130, -signal.SIGINT):
            return "stopped: it can go on from there"
        lines = [line for line in (self.run / LOG).read_text(errors="replace").split("\n") if line.strip()]
        return lines[-1] if lines else f"the training ended with exit code {code}"

    @property
    def metrics(self) -> dict | None:
        """The content of metrics.json after the process has succeeded, else None."""
        if self.run is None or self._process is None or self._process.poll() != 0:
            return None
        return json.loads((self.run / "metrics.json").read_text())
