"""Do the whole job once on a synthetic camera: record, train, export, and classify in rooms that were never recorded.

    python live/demo.py

It runs the commands of daily use and prints them. Everything it makes is in runs/demo/ below the current folder.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("demo")

import json
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Iterator

from teachcam import cli
from teachcam.collect.hands import LABELS, SECONDS_PER_LABEL, label_at
from teachcam.errors import UserError

ROOMS = range(1, 25)  # seeds of the synthetic camera: each is a room with its light and a person
NEW_ROOMS = range(101, 105)
FRAMES_PER_SESSION = 5
FPS = 30  # of the synthetic camera
REQUIRED_ACCURACY = 0.85  # below this the demo fails
FOLDER = Path("runs/demo")  # the commands run in this folder, as in a project


def main(argv: list[str] | None = None) -> int:
    """Run all stages and print a summary. Return the exit code, 1 if the accuracy in new rooms is too low."""
    cli.Parser(description=__doc__.splitlines()[0]).parse_args(argv)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    seconds: dict[str, float] = {}

    with _timed(seconds, "record"):
        _record_all()
    with _timed(seconds, "train"):
        print(_run("train"), end="")
    with _timed(seconds, "export"):
        print(_run("export"), end="")
    correct = total = 0
    with _timed(seconds, "live"):
        for room in NEW_ROOMS:
            predictions = _classify(room)
            correct += sum(prediction["label"] == label_at(prediction["frame"]) for prediction in predictions)
            total += len(predictions)

    accuracy = correct / total
    print(
        f"\naccuracy in {len(NEW_ROOMS)} rooms that were never recorded: {accuracy:.3f} ({correct} of {total} frames)"
    )
    print("seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items()))
    print(f"report: {FOLDER}/runs/latest/report.html")
    print("annotated videos: " + ", ".join(f"{FOLDER}/live_{room}.mp4" for room in NEW_ROOMS))
    return 0 if accuracy > REQUIRED_ACCURACY else 1


def _record_all() -> None:
    """Record every label in every room."""
    commands = [
        f"capture --label {label} --place room{room} --camera synthetic:{label}?seed={room} --headless "
        f"--max-frames {FRAMES_PER_SESSION}"
        for room in ROOMS
        for label in LABELS
    ]
    print(
        f"$ teachcam {commands[0]}\n  ... and {len(commands) - 1} more: every label in {len(ROOMS)} rooms", flush=True
    )
    with ThreadPoolExecutor(4) as pool:  # four cameras at a time: they mostly wait for the next frame
        list(pool.map(partial(_run, quiet=True), commands))


def _classify(room: int) -> list[dict]:
    """Classify every frame of a room while the camera shows each label once; return the lines of --json."""
    num_frames = round(FPS * SECONDS_PER_LABEL * len(LABELS))
    options = f"--max-frames {num_frames} --smoothing 0 --headless --json --record live_{room}.mp4"
    lines = _run(f"live --camera synthetic?seed={room} {options}")
    return [json.loads(line) for line in lines.splitlines()]


def _run(command: str, quiet: bool = False) -> str:
    """Run a command of teachcam in the demo's folder and return its stdout.

    With `quiet`, the command is not printed, and its stderr only if it fails.
    """
    if not quiet:
        print(f"$ teachcam {command}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "teachcam", *shlex.split(command)],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode:
        print(done.stderr or "", end="", file=sys.stderr)
        raise UserError(f"teachcam {command} failed with exit code {done.returncode}")
    return done.stdout


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Store the seconds that the block takes."""
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
