"""The whole idea on the synthetic camera: record, train, export, answer live in rooms it has never seen.

    make demo

Every stage is one of the commands of daily use, printed as it runs. Leaves everything in runs/demo/.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from teachcam.collect.synthetic import LABELS, SECONDS_PER_LABEL, label_at

ROOMS = range(1, 25)  # seeds: a room, a light and a person each
UNSEEN_ROOMS = range(101, 105)
FRAMES_PER_SESSION = 5
ROOT = Path(__file__).resolve().parent
HOME = Path("runs/demo")  # the commands run in here, as if it were a project of its own


def main() -> int:
    """Run the stages; 1 if the accuracy on unseen sessions is not worth showing."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    seconds: dict[str, float] = {}

    with _timed(seconds, "record"):
        commands = [
            f"collect/capture.py --label {label} --camera synthetic:{label}?seed={room} --headless "
            f"--count {FRAMES_PER_SESSION}"
            for room in ROOMS
            for label in LABELS
        ]
        print(f"$ python {commands[0]}\n  ... and {len(commands) - 1} more like it: every label in {len(ROOMS)} rooms")
        with ThreadPoolExecutor(4) as pool:  # four cameras at a time: they mostly wait for the next frame
            list(pool.map(partial(_run, quiet=True), commands))
    with _timed(seconds, "train"):
        print(_command("train/finetune.py --strategy partial --epochs 10 --no-refit"), end="")
    with _timed(seconds, "export"):
        print(_command("export/to_onnx.py"), end="")
    right = answered = 0
    with _timed(seconds, "live"):
        for room in UNSEEN_ROOMS:
            frames = round(30 * SECONDS_PER_LABEL * len(LABELS))
            arguments = f"--camera synthetic?seed={room} --frames {frames} --smoothing 0 --headless --json"
            lines = _command(f"live/run.py {arguments} --record live_{room}.mp4")
            answers = [json.loads(line) for line in lines.splitlines()]
            right += sum(answer["label"] == label_at(answer["frame"]) for answer in answers)
            answered += len(answers)

    accuracy = right / answered
    print(f"\naccuracy live, in {len(UNSEEN_ROOMS)} rooms that were never recorded: {accuracy:.3f} ", end="")
    print(f"({right} of {answered} frames)")
    print("seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items()))
    print(f"the report: {HOME}/runs/latest/report.html")
    print("annotated videos: " + ", ".join(f"{HOME}/live_{room}.mp4" for room in UNSEEN_ROOMS))
    return 0 if accuracy > 0.9 else 1


def _command(command: str) -> str:
    print(f"$ python {command}", flush=True)
    return _run(command)


def _run(command: str, quiet: bool = False) -> str:
    """Run one of the project's commands as a user would, in the demo's folder; return what it printed on stdout.

    If `quiet`, what it says on stderr is shown only where it fails.
    """
    script, *arguments = shlex.split(command)
    stderr = subprocess.PIPE if quiet else None
    python = [sys.executable, ROOT / script]
    run = subprocess.run([*python, *arguments], cwd=HOME, stdout=subprocess.PIPE, stderr=stderr, text=True)
    if run.returncode:
        sys.exit(f"{run.stderr or ''}python {command}: ended with {run.returncode}")
    return run.stdout


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
