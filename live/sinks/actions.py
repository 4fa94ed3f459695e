"""What is to happen when a label is seen: `--on thumbs_up="mpc play"`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from teachcam.errors import UserError
from teachcam.live.prediction import UNKNOWN

if TYPE_CHECKING:
    from teachcam.live.sinks.base import Result

COOL_DOWN = 2.0  # seconds


class Actions:
    """A sink that runs a label's command when the answer becomes that label.

    A command is started in a thread of its own, with the label in TEACHCAM_LABEL and the confidence in
    TEACHCAM_CONFIDENCE; what it prints goes to stderr. It is not started again while it runs, nor within
    `cool_down` seconds of its last start.
    """

    def __init__(self, commands: list[str], labels: tuple[str, ...], cool_down: float = COOL_DOWN, shell: bool = False):
        """Read `LABEL=COMMAND` for each; with `shell` the commands are handed to one. Raises UserError for bad ones."""
        self._commands: dict[str, str | list[str]] = {}
        for text in commands:
            known = [label for label in (*labels, UNKNOWN) if text.startswith(f"{label}=")]
            if not known:
                raise UserError(f"--on {text}: give LABEL=COMMAND, LABEL one of {', '.join((*labels, UNKNOWN))}")
            label = max(known, key=len)  # a label may hold a = itself
            command = text[len(label) + 1 :]
            if label in self._commands:
                raise UserError(f"--on {label}: given twice; put both commands into a script")
            self._commands[label] = command if shell else _split(command)
            if not command.strip():
                raise UserError(f"--on {label}: there is no command after the =")
        self._cool_down, self._shell = cool_down, shell
        self._last: str | None = None
        self._started: dict[str, float] = {}
        self._running: dict[str, threading.Thread] = {}

    def __call__(self, result: Result) -> bool:
        """Start the command of a label that is newly there."""
        label, before = result.answer.label, self._last
        self._last = label
        if label == before or label not in self._commands:
            return True
        now = result.frame.captured
        cooling = now - self._started.get(label, float("-inf")) < self._cool_down
        if not cooling and not (label in self._running and self._running[label].is_alive()):
            self._started[label] = now
            self._running[label] = threading.Thread(target=self._run, args=result.answer[:2], daemon=True)
            self._running[label].start()
        return True

    def _run(self, label: str, confidence: float) -> None:
        environment = {**os.environ, "TEACHCAM_LABEL": label, "TEACHCAM_CONFIDENCE": f"{confidence:.3f}"}
        try:
            code = subprocess.run(
                self._commands[label], shell=self._shell, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
            ).returncode
        except OSError as error:
            code = error.strerror
        if code:
            print(f"--on {label}: the command failed ({code})", file=sys.stderr)

    def close(self) -> None:
        """Let commands that were just started get a moment to end; those that take longer go on without us."""
        for thread in self._running.values():
            thread.join(0.5)


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--on: {command}: {error}") from None
    if words and shutil.which(words[0]) is None:
        raise UserError(f"--on: no program {words[0]!r} here (for pipes and the like, give --shell)")
    return words
