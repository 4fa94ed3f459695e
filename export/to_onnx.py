"""Export a trained model to an ONNX file for a device.

    python export/to_onnx.py
    python export/to_onnx.py --precision int8 --out small.onnx
    python export/to_onnx.py --target jetpack5 --precision fp16 --out jetson.onnx
    python export/to_onnx.py --format triton --out model_repository
    python export/to_onnx.py --describe runs/latest/model.onnx

The file is written only if the device can read it and if it predicts the same as the trained network.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("export")

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from teachcam import cli
from teachcam.export import triton_repository
from teachcam.export.conversion import PRECISIONS, ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.export.metadata import describe
from teachcam.export.parity import ValidationResult
from teachcam.export.targets import TARGETS
from teachcam.export.verify import MAX_IMAGES
from teachcam.files import expand
from teachcam.runs import resolve_latest
from teachcam.self_check import NUM_IMAGES

DYNAMIC_BATCH_SIZE = 8  # the largest batch with --dynamic-batch, unless --batch-size says otherwise
MAX_BATCH_SIZE = 1024


def main(argv: list[str] | None = None) -> int:
    """Export a checkpoint and print what was measured, or describe an exported file. Return the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.describe:
        print(describe(resolve_latest(options.describe)))
        return 0
    if options.batch_size is not None and not 1 <= options.batch_size <= MAX_BATCH_SIZE:
        parser.error(f"--batch-size must be 1 to {MAX_BATCH_SIZE}")
    if options.format == "triton" and options.target != "desktop":
        parser.error("--format triton needs --target desktop")
    checkpoint = resolve_latest(options.checkpoint)
    dynamic_batch = options.dynamic_batch or options.format == "triton"
    config = ExportConfig(
        target=options.target,
        precision=options.precision,
        batch_size=options.batch_size or (DYNAMIC_BATCH_SIZE if dynamic_batch else 1),
        dynamic_batch=dynamic_batch,
        allow_accuracy_drop=options.allow_accuracy_drop,
        check_images=options.check_images,
    )
    with tqdm(bar_format="{desc}", leave=False, disable=None) as line:

        def export_to(file: Path) -> ValidationResult:
            return export(checkpoint, file, options.data, config, lambda text, _: line.set_description_str(text))

        if options.format == "triton":
            out = options.out or checkpoint.parent / "model_repository"
            validation = triton_repository.add_version(out, config.batch_size, export_to)
        else:
            out = options.out or checkpoint.parent / "model.onnx"
            validation = export_to(out)
    for line in _summary(out, config, validation):
        print(line)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--checkpoint",
        type=expand,
        metavar="FILE",
        default=Path("runs/latest/checkpoint.pt"),
        help="the trained model (default: %(default)s)",
    )
    add(
        "--out",
        type=expand,
        metavar="PATH",
        help="the ONNX file to write, or the folder for --format triton (default: model.onnx or model_repository, "
        "beside the checkpoint)",
    )
    add(
        "--data",
        type=expand,
        metavar="DIR",
        help=f"the dataset: the file is compared with the trained network on up to {MAX_IMAGES} of its images "
        "(default: the folder that the model was trained on)",
    )
    add(
        "--target",
        choices=list(TARGETS),
        default="desktop",
        help="where the file will run; jetpack7 is not verified (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp32: exact; fp16: for a Jetson; int8: fast on a CPU (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="images that the model takes at once (default: 1; with --dynamic-batch: at most 8)",
    )
    add(
        "--dynamic-batch",
        action="store_true",
        help="accept any number of images from 1 to --batch-size",
    )
    add(
        "--allow-accuracy-drop",
        action="store_true",
        help="write int8 even if it loses more than one percentage point of accuracy",
    )
    add(
        "--no-check-images",
        dest="check_images",
        action="store_false",
        help=f"do not store {NUM_IMAGES} images of the dataset in the file; with them, a device checks that the model "
        "predicts there what it predicted here",
    )
    add(
        "--format",
        choices=("onnx", "triton"),
        default="onnx",
        help="write an ONNX file, or a model repository for NVIDIA Triton (default: %(default)s)",
    )
    add("--describe", type=expand, metavar="FILE", help="print what an exported ONNX file contains, and export nothing")
    return parser


def _summary(out: Path, config: ExportConfig, validation: ValidationResult) -> Iterator[str]:
    """Yield the lines that the command prints about a written file."""
    parity = validation.parity
    same = "all" if parity.same_label == parity.num_images else f"{parity.same_label} of"
    yield (
        f"{out}: {config.precision} for {TARGETS[config.target].device}; same label as PyTorch on {same} "
        f"{parity.num_images} images, largest difference of a probability {parity.largest_difference:.1e}"
    )
    if config.precision != "fp32" and validation.num_validation_images:
        yield validation.accuracies()
    if validation.float_layers:
        yield f"layers that stay in float, to keep the accuracy: {', '.join(validation.float_layers)}"
    if config.precision == "int8" and config.target == "jetpack4":
        yield "a Jetson Nano's GPU has no int8, so the model will not be faster there; on a Xavier it will"
