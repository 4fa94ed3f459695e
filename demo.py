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
from pathlib import Path

from collect.synthetic import LABELS, SECONDS_PER_LABEL, label_at

ROOMS = range(1, 27)  # seeds: a room, a light and a person each
UNSEEN_ROOMS = range(101, 105)
FRAMES_PER_SESSION = 5
OUT = Path("runs/demo")


def main() -> int:
    """Run the stages; 1 if the accuracy on unseen sessions is not worth showing."""
    shutil.rmtree(OUT, ignore_errors=True)
    seconds: dict[str, float] = {}

    with _timed(seconds, "record"):
        commands = [
            f"collect/capture.py --label {label} --camera synthetic:{label}?seed={room} --data {OUT}/data "
            f"--headless --count {FRAMES_PER_SESSION} --fps 5"
            for room in ROOMS
            for label in LABELS
        ]
        with ThreadPoolExecutor(4) as pool:  # four cameras at a time: they mostly wait for the next frame
            list(pool.map(_command, commands))
    with _timed(seconds, "train"):
        _command(f"train/finetune.py --data {OUT}/data --strategy full --epochs 6 --out {OUT}")
    with _timed(seconds, "export"):
        _command(f"export/to_onnx.py --checkpoint {OUT}/checkpoint.pt")
    right = answered = 0
    with _timed(seconds, "live"):
        for room in UNSEEN_ROOMS:
            frames = round(30 * SECONDS_PER_LABEL * len(LABELS))
            arguments = f"--camera synthetic?seed={room} --model {OUT}/model.onnx --frames {frames}"
            lines = _command(f"live/run.py {arguments} --headless --json --record {OUT}/live_{room}.mp4")
            answers = [json.loads(line) for line in lines.splitlines()]
            right += sum(answer["label"] == label_at(answer["frame"]) for answer in answers)
            answered += len(answers)

    accuracy = right / answered
    print(f"\naccuracy in {len(UNSEEN_ROOMS)} rooms it had never seen: {accuracy:.3f} ({right} of {answered} frames)")
    print("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items()))
    print(f"the report: {OUT}/report.html")
    print("annotated videos: " + ", ".join(f"{OUT}/live_{room}.mp4" for room in UNSEEN_ROOMS))
    return 0 if accuracy > 0.9 else 1


def _command(command: str) -> str:
    """Run one of the project's commands as a user would, and return what it printed on stdout."""
    print(f"$ python {command}", flush=True)
    run = subprocess.run([sys.executable, *shlex.split(command)], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(run.returncode)
    if "--json" not in command:
        print(run.stdout, end="", flush=True)
    return run.stdout


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
