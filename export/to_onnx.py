"""Export a checkpoint to ONNX for a device, and prove the file before it is there.

    python export/to_onnx.py
    python export/to_onnx.py --precision int8 --out small.onnx
    python export/to_onnx.py --target jetpack5 --precision fp16 --out jetson.onnx
    python export/to_onnx.py --format triton --out model_repository
    python export/to_onnx.py --describe runs/latest/model.onnx

The file is written only if the target can read it, and answers as the trained network does, on real frames.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from teachcam import cli
from teachcam.contract import Contract
from teachcam.errors import ExportError, UnreadableImage
from teachcam.export import triton_repository
from teachcam.export.graph import fold_normalization, write_onnx
from teachcam.export.metadata import description, read_metadata, write_metadata
from teachcam.export.quantize import LEAST_FRAMES, to_half, to_int8, worst_layers
from teachcam.export.saturation import can_saturate
from teachcam.export.targets import TARGETS, lint
from teachcam.export.verify import TOLERANCE, Parity, compare
from teachcam.files import write_atomic
from teachcam.images import read_image
from teachcam.onnx_session import answer, batches
from teachcam.preprocessing import shrink
from teachcam.processor import processor_name
from teachcam.self_check import NUM_IMAGES, SelfCheck
from teachcam.train.model.checkpoint import Checkpoint, load_checkpoint
from teachcam.train.model.inference import InferenceModel, predict

FRAMES = 200  # at most, to prove a file on and as many to learn int8's ranges from
OPEN_BATCH = 8  # frames at once that an engine is made for, where the batch is left open
MAX_ACCURACY_DROP = 0.01 + 1e-9  # of the accuracy, by int8: a point, however it is rounded
OTHER_ANSWERS = 0.1  # the share beyond which int8 is another model, even if it is right as often


@dataclass(frozen=True)
class ExportConfig:
    """What to export for. With `open_batch` the graph takes 1 to `batch` frames at once, else `batch` exactly."""

    target: str = "desktop"
    precision: str = "fp32"
    batch: int = 1
    open_batch: bool = False
    allow_loss: bool = False
    check_images: bool = True  # a few images of the dataset travel in the file, to prove it again where it runs


@dataclass(frozen=True)
class ValidationResult:
    """What a written file was measured to be worth, on the same frames as the network it was made from."""

    parity: Parity
    validation: int  # frames among them that it was not trained on when it was measured
    accuracy: float | None  # on those
    fp32_accuracy: float | None
    kept_in_float: list[str] = field(default_factory=list)  # layers that int8 would have cost too much in


def main(argv: list[str] | None = None) -> int:
    """Export, check, and print what was proved; or describe a file."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/latest/checkpoint.pt"))
    parser.add_argument("--out", type=Path, help="the ONNX file (model.onnx beside the checkpoint), or the repository")
    parser.add_argument("--data", type=Path, help="where the frames are, if no longer where they were trained on")
    parser.add_argument("--target", choices=list(TARGETS), default="desktop", help="what it will run on")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    parser.add_argument("--batch", type=int, help="frames at once (1)")
    parser.add_argument("--dynamic-batch", action="store_true", help=f"any number up to --batch ({OPEN_BATCH})")
    parser.add_argument("--allow-loss", action="store_true", help="write int8 even if it loses over a point")
    parser.add_argument(
        "--no-check-images",
        action="store_true",
        help=f"leave out the {NUM_IMAGES} images of the dataset by which the model is checked where it runs",
    )
    parser.add_argument("--format", choices=("onnx", "triton"), default="onnx")
    parser.add_argument("--describe", type=Path, metavar="FILE", help="tell what an exported file is, and stop")
    options = parser.parse_args(argv)
    if options.describe:
        print(description(options.describe))
        return 0
    if options.batch is not None and not 1 <= options.batch <= 1024:
        parser.error("--batch: 1 to 1024")
    if options.format == "triton" and options.target != "desktop":
        parser.error("--format triton: for --target desktop")
    open_batch = options.dynamic_batch or options.format == "triton"
    batch = options.batch or (OPEN_BATCH if open_batch else 1)
    request = ExportConfig(
        options.target, options.precision, batch, open_batch, options.allow_loss, not options.no_check_images
    )
    if options.format == "triton":
        out = options.out or options.checkpoint.parent / "model_repository"
        proof = triton_repository.export(
            out, batch, lambda file: export(options.checkpoint, file, options.data, request)
        )
    else:
        out = options.out or options.checkpoint.parent / "model.onnx"
        proof = export(options.checkpoint, out, options.data, request)
    for line in _lines(out, request, proof):
        print(line)
    return 0


def export(
    checkpoint_file: Path, out: Path, data: Path | None = None, request: ExportConfig | None = None
) -> ValidationResult:
    """Write `out` from a checkpoint, if it passes; raises ExportError and leaves no file if not.

    It is proved on held-out frames, and on trained ones up to `FRAMES`, below `data` or where the checkpoint says.
    """
    request = request or ExportConfig()
    checkpoint = load_checkpoint(checkpoint_file)
    judge = Validator(checkpoint, data)
    with tempfile.TemporaryDirectory() as folder:
        if request.precision == "int8":
            file, kept = _int8(Path(folder), judge, request)
        else:
            file, kept = _float(Path(folder), judge, request), []
        if complaints := lint(onnx.load(str(file)), TARGETS[request.target]):
            more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
            raise ExportError(f"{complaints[0]}{more}; no file was written")
        if TARGETS[request.target].operators is None and (layers := can_saturate(onnx.load(str(file)))):
            raise ExportError(
                f"int8 of {layers[0]} (and {len(layers) - 1} more layers) can overflow on processors without VNNI, "
                "and would answer otherwise there; no file was written: export fp32"
            )
        proof = judge.proof(file, kept)
        if request.precision in TOLERANCE:
            proof.parity.require(TOLERANCE[request.precision])
        check = None
        if request.check_images:
            check = SelfCheck.of(file, judge.frames, checkpoint.contract, request.precision)
        write_metadata(file, checkpoint.contract, _record(checkpoint_file, request, proof), check)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, file.read_bytes())
        except OSError as error:
            raise ExportError(f"can't write {out}: {error.strerror}") from None
    return proof


def request_of(file: Path) -> ExportConfig | None:
    """Return what a file was exported for, to export a newer checkpoint alike; None if it does not say."""
    try:
        _, record = read_metadata(file)
    except cli.UserError:
        return None
    known = {entry.name for entry in fields(ExportConfig)}
    return ExportConfig(**{name: value for name, value in record.items() if name in known})


class Validator:
    """The trained network's answers on real frames, and how good they are where it was not trained on them."""

    def __init__(self, checkpoint: Checkpoint, data: Path | None):
        self.contract = checkpoint.contract
        self.model = InferenceModel(checkpoint.network, self.contract)
        folder = data or Path(checkpoint.data)
        self.validation, self.trained = (
            _read(_spread(names, FRAMES), folder, self.contract)
            for names in (checkpoint.validation, checkpoint.trained_on)
        )
        if len(self.trained) < LEAST_FRAMES:  # after cross-validation all were held out
            self.trained += self.validation[1::2]
            self.validation = self.validation[::2]
        self.frames = [frame for frame, _ in (self.validation + self.trained)[:FRAMES]]
        if not self.frames:
            raise ExportError(
                f"none of the frames it was trained on are in {folder}, so nothing can be proved: "
                "say where they are with python export/to_onnx.py --data DIR"
            )
        self.expected = predict(self.model, self.frames, self.contract)
        self.class_ids = np.array([self.contract.labels.index(label) for _, label in self.validation], int)

    def accuracy(self, answers: np.ndarray) -> float | None:
        """Return the accuracy on the held-out frames, the first of all."""
        right = answers[: len(self.class_ids)].argmax(1) == self.class_ids
        return float(right.mean()) if len(right) else None

    def proof(self, file: Path, kept: list[str]) -> ValidationResult:
        """Ask a file all frames."""
        answers = answer(file, self.frames, self.contract)
        parity = compare(answers, self.expected)
        return ValidationResult(parity, len(self.class_ids), self.accuracy(answers), self.accuracy(self.expected), kept)

    def loss(self, file: Path) -> float:
        """Return how much accuracy a file lacks, 0 to 1; and where many answers are others, at least their share."""
        proof = self.proof(file, [])
        lost = proof.fp32_accuracy - proof.accuracy if len(self.class_ids) else 0.0
        other = 1 - proof.parity.agreeing / proof.parity.frames
        return max(lost, other if other > OTHER_ANSWERS else 0.0)


def _float(folder: Path, judge: Validator, request: ExportConfig) -> Path:
    batch = None if request.open_batch else request.batch
    file = folder / "fp32.onnx"
    write_onnx(file, judge.model, judge.contract.input_size, TARGETS[request.target], batch)
    if request.precision == "fp16":
        file = to_half(file, folder / "fp16.onnx")
    return file


def _int8(folder: Path, judge: Validator, request: ExportConfig) -> tuple[Path, list[str]]:
    """Write int8, with as many of the layers that it distorts most in float as it takes; return those too."""
    target, size = TARGETS[request.target], judge.contract.input_size
    if not judge.validation and not request.allow_loss:
        raise ExportError("no held-out frames to judge int8 by: record more sessions, or give --allow-loss")
    # A GPU does the normalization for nothing, and a centered picture has more of int8's steps around zero.
    model = judge.model if target.operators else fold_normalization(judge.model, size)
    batch = None if request.open_batch else request.batch
    source, file = folder / "fp32.onnx", folder / "int8.onnx"
    write_onnx(source, model, size, target, batch)
    dtype = np.uint8 if target.uint8_input else np.float32
    inputs = batches([frame for frame, _ in judge.trained], judge.contract, dtype, batch or 1)
    to_int8(source, file, inputs, target)
    loss = judge.loss(file)
    if loss <= MAX_ACCURACY_DROP or request.allow_loss:
        return file, []
    layers = worst_layers(source, file, inputs[:4])
    count = 1
    while count <= len(layers) / 2:
        print(f"int8 loses {100 * loss:.1f} points: trying with {count} layers in float", file=sys.stderr)
        to_int8(source, file, inputs, target, keep=layers[:count])
        loss = judge.loss(file)
        if loss <= MAX_ACCURACY_DROP:
            return file, layers[:count]
        count *= 2
    raise ExportError(
        f"int8 loses {100 * loss:.1f} points of accuracy on {len(judge.validation)} held-out frames, even with half of "
        "its layers in float; no file was written: export fp16, or give --allow-loss"
    )


def _spread(names: list[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Return up to `most` labels and paths, taken evenly from all: they are in order of their labels."""
    return [
        names[index] for index in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
    ]


def _read(names: list[tuple[str, str]], folder: Path, contract: Contract) -> list[tuple[np.ndarray, str]]:
    """Read frames, as small as `preprocess` allows, and their labels."""
    frames = []
    for label, name in names:
        try:
            frames.append((shrink(read_image(folder / name), contract.input_size), label))
        except UnreadableImage:
            continue  # moved or deleted since; the others prove as much
    return frames


def _record(checkpoint_file: Path, request: ExportConfig, proof: ValidationResult) -> dict:
    """Return what a file tells of how it was made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "checkpoint_sha256": hashlib.sha256(checkpoint_file.read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "processor": processor_name(),  # on which the proof was taken, by ONNX Runtime's CPU provider
        **asdict(request),
        # Smallest, usual and largest number of frames at once: what TensorRT needs to know of an open batch.
        "profile": [1 if request.open_batch else request.batch, request.batch, request.batch],
        "proof": asdict(proof),
    }


def _lines(out: Path, request: ExportConfig, proof: ValidationResult) -> Iterator[str]:
    parity = proof.parity
    yield (
        f"{out}: {request.precision} for {TARGETS[request.target].device}; the same label as PyTorch on "
        f"{'all of ' if parity.agreeing == parity.frames else f'{parity.agreeing} of '}{parity.frames} real frames, "
        f"largest difference of a probability {parity.largest_difference:.1e}"
    )
    if request.precision != "fp32" and proof.validation:
        yield (
            f"accuracy on the {proof.validation} held-out frames among them: {proof.accuracy:.3f}, "
            f"in fp32 {proof.fp32_accuracy:.3f}"
        )
    if proof.kept_in_float:
        yield f"kept in float, for the accuracy: {', '.join(proof.kept_in_float)}"
    if request.precision == "int8" and request.target == "jetpack4":
        yield "the Nano's GPU has no int8 and will not be quicker with it; a Xavier's has"


if __name__ == "__main__":
    cli.run(main)
