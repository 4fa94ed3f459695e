"""Compare size, speed and accuracy of fp32, fp16 and int8 on this machine, and recommend one.

    python export/compare.py
    python export/compare.py --checkpoint runs/my_run/checkpoint.pt --num-images 300

Every precision is timed on every execution provider of ONNX Runtime (TensorRT, CUDA, CPU) that works here.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("compare")

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from teachcam import cli
from teachcam.contract import Contract
from teachcam.errors import ExportError, ModelError
from teachcam.export.conversion import ExportConfig
from teachcam.export.exporter import export
from teachcam.export.metadata import read_metadata
from teachcam.export.parity import ValidationResult
from teachcam.export.verify import MAX_ACCURACY_DROP
from teachcam.files import expand, naming
from teachcam.onnx_session import PROVIDERS, open_session
from teachcam.preprocessing import preprocess
from teachcam.processor import processor_name
from teachcam.runs import resolve_latest

PRECISIONS = ("fp32", "fp16", "int8")
ROUNDS = 5  # the timing goes round all rows, so that a busy moment of the machine slows all of them
WARM_UP = 10  # images at the start of each round that are not timed: the threads of the row before still end

logger = logging.getLogger("teachcam.export.compare")


@dataclass(frozen=True)
class Row:
    """One precision on one execution provider."""

    precision: str
    provider: str  # a key of PROVIDERS
    megabytes: float  # size of the file
    milliseconds: list[float]  # of each image: preprocessing from 480x640, and the model
    validation: ValidationResult


def main(argv: list[str] | None = None) -> int:
    """Print the table, and the command that exports the recommended precision. Return the exit code."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint",
        type=expand,
        metavar="FILE",
        default=Path("runs/latest/checkpoint.pt"),
        help="the trained model (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=expand,
        metavar="DIR",
        help="the dataset that the accuracy is measured on (default: the folder that the model was trained on)",
    )
    parser.add_argument(
        "--num-images",
        type=int,
        metavar="N",
        default=200,
        help="number of images to time each precision on (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.num_images < 1:
        parser.error("--num-images must be at least 1")
    rows = measure(resolve_latest(options.checkpoint), options.data, options.num_images)
    print(f"{'':<6} {'on':<8} {'MB':>5} {'p50 ms':>7} {'p99 ms':>7} {'FPS':>6} {'accuracy':>9} {'differs by':>11}")
    for row in rows:
        p50, p99 = np.percentile(row.milliseconds, (50, 99))
        accuracy = "-" if row.validation.accuracy is None else f"{row.validation.accuracy:.3f}"
        print(
            f"{row.precision:<6} {row.provider:<8} {row.megabytes:5.1f} {p50:7.2f} {p99:7.2f} {1000 / p50:6.0f} "
            f"{accuracy:>9} {row.validation.parity.largest_difference:11.1e}"
        )
    best = recommend(rows)
    print(f"accuracy: on {best.validation.num_validation_images} validation images; times: on {processor_name()}")
    print(
        f"recommended for this machine: {best.precision} on {best.provider}; "
        f"teachcam export --checkpoint {options.checkpoint} --precision {best.precision}"
    )
    return 0


def measure(checkpoint: Path, data: Path | None, num_images: int) -> list[Row]:
    """Export every precision, and time each file on every execution provider that works here.

    A precision that can't be exported, for example because int8 loses too much accuracy, is left out.

    Args:
        checkpoint: The trained model.
        data: The dataset's folder; None for the folder that the checkpoint names.
        num_images: Number of images to time each row on, rounded up to a multiple of `ROUNDS`.

    Raises:
        ExportError: Not even fp32 can be exported.
    """
    running = []
    with tempfile.TemporaryDirectory() as folder, naming(folder):
        for precision in PRECISIONS:
            file = Path(folder) / f"{precision}.onnx"
            try:
                validation = export(checkpoint, file, data, ExportConfig(precision=precision))
            except ExportError as error:
                if precision == "fp32":
                    raise
                logger.info("%s: %s", precision, error)
                continue
            for provider in PROVIDERS:
                try:
                    ort_session, _ = open_session(file, provider)
                except ModelError:
                    continue  # it does not work on this machine
                running.append((Row(precision, provider, file.stat().st_size / 1e6, [], validation), ort_session))
        contract, _ = read_metadata(Path(folder) / "fp32.onnx")
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(8)]
        for _ in range(ROUNDS):
            for row, ort_session in running:
                times = _time(ort_session, contract, images, WARM_UP + -(-num_images // ROUNDS))
                row.milliseconds.extend(times[WARM_UP:])
    return [row for row, _ in running]


def _time(
    ort_session: onnxruntime.InferenceSession, contract: Contract, images: list[np.ndarray], count: int
) -> list[float]:
    """Return the milliseconds from an image to its probabilities, `count` times."""
    times = []
    for index in range(count):
        started = time.perf_counter()
        inputs = {"images": preprocess(images[index % len(images)], contract)[None]}
        ort_session.run(["probabilities"], inputs)
        times.append(1000 * (time.perf_counter() - started))
    return times


def recommend(rows: list[Row]) -> Row:
    """Return the fastest row among those that lose at most `MAX_ACCURACY_DROP` of the accuracy in fp32."""
    required = max(row.validation.fp32_accuracy or 0 for row in rows) - MAX_ACCURACY_DROP
    accurate = [row for row in rows if row.validation.accuracy is None or row.validation.accuracy >= required]
    return min(accurate, key=lambda row: np.median(row.milliseconds))
