"""Train in a process of its own, and follow it by what it writes: for a notebook, and for a web page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from teachcam.train.engine.progress import read_epochs
from teachcam.train.engine.run_folder import interrupted_runs, load_interrupted_run

LOG = "log.txt"  # in the run's folder: the output of the process


class BackgroundTraining:
    """A process that runs `train/finetune.py`. It goes on if this program ends.

    Attributes:
        run: The folder of the run, or None before the first.
    """

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.run: Path | None = None
        self._process: subprocess.Popen | None = None

    def start(self, arguments: list) -> None:
        """Begin a new run with these arguments of the command line."""
        self.run = Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        self._start([*arguments, "--out", self.run])

    def resume(self) -> None:
        """Continue the newest interrupted run. Raises TrainingError if there is none."""
        self.run = load_interrupted_run().out
        self._start(["--resume", self.run])

    def stop(self) -> None:
        """Interrupt the process. It ends after it has saved what it needs to continue."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def _start(self, arguments: list) -> None:
        command = [sys.executable, str(Path(__file__).with_name("finetune.py")), *map(str, arguments)]
        self.run.mkdir(parents=True, exist_ok=True)
        # A new process session and output to a file: the process goes on if this one is interrupted or ends.
        with (self.run / LOG).open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def can_resume(self) -> bool:
        """Whether there is an interrupted run to continue."""
        return not self.running and bool(interrupted_runs())

    @property
    def epochs(self) -> list[dict]:
        """The metrics of all epochs so far."""
        return read_epochs(self.run) if self.run else []

    @property
    def failure(self) -> str:
        """Why the process has ended without a result, as one line; "" if it has not."""
        code = None if self._process is None else self._process.poll()
        if code is None or code == 0:
            return ""
        if code in (130, -signal.SIGINT):
            return "stopped: Resume continues after the last finished epoch"
        lines = [line for line in (self.run / LOG).read_text(errors="replace").split("\n") if line.strip()]
        return lines[-1] if lines else f"the training ended with exit code {code}"

    @property
    def metrics(self) -> dict | None:
        """What metrics.json says, once the process has ended well."""
        if self._process is None or self._process.poll() != 0:
            return None
        return json.loads((self.run / "metrics.json").read_text())
