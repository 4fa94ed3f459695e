"""Compare int8 with fp32 in rooms that training never saw, on processors with and without VNNI.

    python benchmarks/int8_processors.py DATA

It measures accuracy, the labels that change and the time of an image. The processor without VNNI is Intel's Haswell,
emulated by qemu-x86_64 (Debian's package qemu-user).

DATA is a dataset in which every session is a room. Every third room is left out, and a head is trained on the others.
The row `int8 8-bit` has weights of 8 bits, which export/to_onnx.py refuses to write.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import Sample, list_samples
from teachcam.export import conversion, quantize
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.images import read_image
from teachcam.preprocessing import preprocess
from teachcam.processor import processor_name
from teachcam.train import finetune
from teachcam.train.model.checkpoint import load_checkpoint

HASWELL = ["qemu-x86_64", "-cpu", "Haswell"]  # runs a program on an emulated processor with AVX2 and without VNNI
PREDICT = """
import sys, time, numpy as np, onnxruntime
model, inputs, out = sys.argv[1:]
ort_session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
times, rows = [], []
for image in np.load(inputs):
    started = time.perf_counter()
    rows.append(ort_session.run(["probabilities"], {"images": image[None]})[0][0])
    times.append(time.perf_counter() - started)
np.save(out, np.array(rows))
print(1000 * np.median(times))
"""


def main() -> None:
    """Print one row for each file and processor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a dataset in which every session is a room")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test = split_rooms(options.data, folder / "train")
        finetune.main(["--data", str(folder / "train"), "--strategy", "head", "--out", str(folder / "run")])
        checkpoint = folder / "run" / "checkpoint.pt"
        contract = load_checkpoint(checkpoint).contract
        np.save(folder / "inputs.npy", np.stack([preprocess(read_image(sample.path), contract) for sample in test]))
        class_ids = np.array([contract.labels.index(sample.label) for sample in test])
        files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx", "int8 8-bit": folder / "8_bit.onnx"}
        export(checkpoint, files["fp32"])
        export(checkpoint, files["int8"], config=ExportConfig(precision="int8", allow_accuracy_drop=True))
        export_with_8_bit_weights(checkpoint, files["int8 8-bit"])
        print(f"{len(test)} images of rooms that training never saw")
        print(f"{'file':<11} {'accuracy':>8} {'labels unlike fp32':>19} {'unlike with VNNI':>17} {'ms':>7}  processor")
        here = {name: predict([], file, folder) for name, file in files.items()}
        emulated = {name: predict(HASWELL, file, folder) for name, file in files.items()}
        for processor, results in ((processor_name(), here), ("emulated Haswell, no VNNI", emulated)):
            for name, (predicted, milliseconds) in results.items():
                accuracy = (predicted == class_ids).mean()
                unlike_fp32 = (predicted != here["fp32"][0]).sum()
                unlike_here = (predicted != here[name][0]).sum()
                speed = f"{milliseconds:7.2f}" if results is here else f"{'-':>7}"  # an emulator's time means nothing
                print(f"{name:<11} {accuracy:8.3f} {unlike_fp32:19} {unlike_here:17} {speed}  {processor}")


def split_rooms(data: Path, train: Path) -> list[Sample]:
    """Copy two thirds of the rooms to the folder `train`, and return the samples of the other rooms."""
    samples = list_samples(data)
    rooms = sorted({sample.session for sample in samples})
    test_rooms = set(rooms[1::3])
    for sample in samples:
        if sample.session not in test_rooms:
            (train / sample.label).mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.path, train / sample.label)
    return [sample for sample in samples if sample.session in test_rooms]


def export_with_8_bit_weights(checkpoint: Path, out: Path) -> None:
    """Export int8 with weights of 8 bits: switch off the quantizer's `reduce_range` and the check of the result."""
    quantize_static, find_layers = quantize.quantization.quantize_static, conversion.find_saturating_layers

    def with_8_bits(*arguments, reduce_range, **options):
        quantize_static(*arguments, **options)

    quantize.quantization.quantize_static, conversion.find_saturating_layers = with_8_bits, lambda model: []
    try:
        export(checkpoint, out, config=ExportConfig(precision="int8", allow_accuracy_drop=True))
    finally:
        quantize.quantization.quantize_static, conversion.find_saturating_layers = quantize_static, find_layers


def predict(emulator: list[str], model: Path, folder: Path) -> tuple[np.ndarray, float]:
    """Return the class ids that a model predicts for `inputs.npy`, and the median of the milliseconds of an image."""
    arguments = [str(model), str(folder / "inputs.npy"), str(folder / "probabilities.npy")]
    command = [*emulator, sys.executable, "-c", PREDICT, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return np.load(folder / "probabilities.npy").argmax(1), float(done.stdout)


if __name__ == "__main__":
    main()
