"""Run a command when a label is predicted: `--on thumbs_up="mpc play"`."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from teachcam.cli import first_line
from teachcam.collect.dataset import normalize_text
from teachcam.errors import UserError
from teachcam.files import expand
from teachcam.live.prediction import UNKNOWN

if TYPE_CHECKING:
    from teachcam.live.sinks.base import FrameResult

COOL_DOWN = 2.0  # seconds

logger = logging.getLogger(__name__)


class Actions:
    """A sink that runs a label's command when the predicted label becomes that label.

    The command finds the label in the environment variable TEACHCAM_LABEL and the confidence in TEACHCAM_CONFIDENCE.
    What it prints goes to stderr. The loop does not wait for it. A command that still runs is not started again. If the
    command of another label was started meanwhile, it is started as soon as it may be, while the label stays: else a
    lamp would stay off.

    Args:
        commands: `LABEL=COMMAND` each. LABEL may be "unknown".
        labels: The model's labels.
        cool_down: Least number of seconds between two starts of the same command.
        shell: Run the commands in a shell, which allows pipes. Else no shell ever sees them.

    Raises:
        UserError: A command has an unknown label, is empty, is given twice, or its program is not installed.
    """

    def __init__(self, commands: list[str], labels: tuple[str, ...], cool_down: float = COOL_DOWN, shell: bool = False):
        self._commands: dict[str, str | list[str]] = {}
        for text in commands:
            label, command = _split_label(text, (*labels, UNKNOWN))
            if label in self._commands:
                raise UserError(f"--on {label}: given twice; put both commands into a script")
            if not command.strip():
                raise UserError(f"--on {label}: there is no command after the =")
            self._commands[label] = command if shell else _split(command)
        self._cool_down, self._shell = cool_down, shell
        self._last: str | None = None
        self._last_started: str | None = None  # the label of the command that was started last
        self._started: dict[str, float] = {}  # label -> Frame.time when its command was last started, seconds
        self._running: dict[str, threading.Thread] = {}

    def __call__(self, result: FrameResult) -> bool:
        """Start the command of the predicted label, if the label has changed or its command could not start before."""
        label, before = result.prediction.label, self._last
        self._last = label
        if label not in self._commands or (label == before and label == self._last_started):
            return True
        now = result.frame.time
        cooling = now - self._started.get(label, float("-inf")) < self._cool_down
        if not cooling and not (label in self._running and self._running[label].is_alive()):
            self._started[label], self._last_started = now, label
            self._running[label] = threading.Thread(target=self._run, args=result.prediction[:2], daemon=True)
            self._running[label].start()
        return True

    def _run(self, label: str, confidence: float) -> None:
        environment = {**os.environ, "TEACHCAM_LABEL": label, "TEACHCAM_CONFIDENCE": f"{confidence:.3f}"}
        try:
            failure: int | str | None = subprocess.run(
                self._commands[label], shell=self._shell, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
            ).returncode
        except (OSError, ValueError) as error:
            failure = first_line(error)
        if failure:
            logger.warning(f"--on {label}: the command failed ({failure})")

    def close(self) -> None:
        """Wait half a second for each command that still runs. Longer ones go on after the program has ended."""
        for thread in self._running.values():
            thread.join(0.5)


def _split_label(text: str, labels: tuple[str, ...]) -> tuple[str, str]:
    """Split LABEL=COMMAND. A label may itself contain "=", and then the longest one counts."""
    ends = [index for index, character in enumerate(text) if character == "="]
    for end in reversed(ends):
        if normalize_text(text[:end]) in labels:
            return normalize_text(text[:end]), text[end + 1 :]
    raise UserError(f"--on {text}: give LABEL=COMMAND, LABEL one of {', '.join(labels)}")


def _split(command: str) -> list[str]:
    """Split a command into its words, and check that its program exists."""
    try:
        words = [str(expand(word)) if word.startswith("~") else word for word in shlex.split(command)]
    except ValueError as error:
        raise UserError(f"--on: {command}: {error}") from None
    if words and shutil.which(words[0]) is None:
        raise UserError(f"--on: the program {words[0]!r} is not installed (for pipes and shell syntax, add --shell)")
    return words
