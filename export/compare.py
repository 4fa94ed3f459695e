"""Compare every precision on every execution provider that runs here, and say which to take.

python export/compare.py
python export/compare.py --checkpoint runs/my_run/checkpoint.pt --frames 300
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teachcam import cli
from teachcam.errors import ExportError, ModelError
from teachcam.export.metadata import read_metadata
from teachcam.export.to_onnx import ExportConfig, ValidationResult, export
from teachcam.onnx_session import PROVIDERS, open_session
from teachcam.preprocessing import preprocess

PRECISIONS = ("fp32", "fp16", "int8")
ROUNDS = 5
WARM_UP = 10  # frames, each time
MAX_ACCURACY_DROP = 0.01  # of the accuracy, for speed


@dataclass(frozen=True)
class Row:
    """One precision on one provider."""

    precision: str
    provider: str
    megabytes: float
    milliseconds: list[float]  # from a 480x640 frame to its answer, each time
    proof: ValidationResult


def main(argv: list[str] | None = None) -> int:
    """Print the table, and the command that exports what it recommends."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/latest/checkpoint.pt"))
    parser.add_argument("--data", type=Path, help="where the frames are, if no longer where they were trained on")
    parser.add_argument("--frames", type=int, default=200, help="to time each on (%(default)s)")
    options = parser.parse_args(argv)
    if options.frames < 1:
        parser.error("--frames: at least 1")
    rows = measure(options.checkpoint, options.data, options.frames)
    print(f"{'':<6} {'on':<8} {'MB':>5} {'p50 ms':>7} {'p99 ms':>7} {'FPS':>6} {'accuracy':>9} {'differs by':>11}")
    for row in rows:
        p50, p99 = np.percentile(row.milliseconds, (50, 99))
        accuracy = "-" if row.proof.accuracy is None else f"{row.proof.accuracy:.3f}"
        print(
            f"{row.precision:<6} {row.provider:<8} {row.megabytes:5.1f} {p50:7.2f} {p99:7.2f} {1000 / p50:6.0f} "
            f"{accuracy:>9} {row.proof.parity.largest_difference:11.1e}"
        )
    best = recommended(rows)
    print(
        f"accuracy: on {best.proof.validation} held-out frames. For this machine: {best.precision} on {best.provider}; "
        f"python export/to_onnx.py --checkpoint {options.checkpoint} --precision {best.precision}"
    )
    return 0


def measure(checkpoint: Path, data: Path | None, frames: int) -> list[Row]:
    """Export every precision to a passing file, and time it on every provider that runs; all in turn."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(8)]
    running = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            file = Path(folder) / f"{precision}.onnx"
            try:
                proof = export(checkpoint, file, data, ExportConfig(precision=precision))
            except ExportError as error:
                if precision == "fp32":
                    raise
                print(f"{precision}: {error}", file=sys.stderr)
                continue
            for provider in PROVIDERS:
                try:
                    session, _ = open_session(file, provider)
                except ModelError:
                    continue  # not on this machine
                running.append((Row(precision, provider, file.stat().st_size / 1e6, [], proof), session))
        contract, _ = read_metadata(Path(folder) / "fp32.onnx")
        for _ in range(ROUNDS):  # in turn, so that a busy moment hits all of them
            for row, session in running:
                for count in range(WARM_UP + -(-frames // ROUNDS)):
                    started = time.perf_counter()
                    inputs = {"images": preprocess(pictures[count % len(pictures)], contract)[None]}
                    session.run(["probabilities"], inputs)
                    if count >= WARM_UP:  # the threads of the one before are still on their way out
                        row.milliseconds.append(1000 * (time.perf_counter() - started))
    return [row for row, _ in running]


def recommended(rows: list[Row]) -> Row:
    """Return the quickest of those that are as accurate as fp32, give or take a point."""
    least = max(row.proof.fp32_accuracy or 0 for row in rows) - MAX_ACCURACY_DROP
    good = [row for row in rows if row.proof.accuracy is None or row.proof.accuracy >= least]
    return min(good, key=lambda row: np.median(row.milliseconds))


if __name__ == "__main__":
    cli.run(main)
