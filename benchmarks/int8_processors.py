"""What int8 costs in rooms held out, with VNNI and without: labels that differ from fp32, points lost, speed.

    python benchmarks/int8_processors.py DATA

DATA is a dataset whose sessions are rooms; every third one is held out, and a head is trained on the others. Each file
answers all held-out frames on this processor and, emulated by qemu-x86_64 (Debian's qemu-user), on Intel's Haswell,
which has AVX2 and no VNNI. `8 bits` is int8 with weights of 8 bits, which `export/to_onnx.py` refuses to write.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from teachcam.collect.dataset import read_items
from teachcam.export import quantize, to_onnx
from teachcam.export.to_onnx import ExportConfig, export
from teachcam.images import read_image
from teachcam.preprocessing import preprocess
from teachcam.processor import processor_name
from teachcam.train import finetune
from teachcam.train.model.checkpoint import load_checkpoint

ASK = """
import sys, time, numpy as np, onnxruntime
model, inputs, out = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
times, rows = [], []
for frame in np.load(inputs):
    started = time.perf_counter()
    rows.append(session.run(["probabilities"], {"images": frame[None]})[0][0])
    times.append(time.perf_counter() - started)
np.save(out, np.array(rows))
print(1000 * np.median(times))
"""


def main(data: str) -> None:
    """Print a row for each file and processor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outside = split_rooms(Path(data), folder / "inside")
        command = ["--data", str(folder / "inside"), "--strategy", "head", "--out", str(folder / "run")]
        finetune.main(command)
        checkpoint = folder / "run" / "checkpoint.pt"
        contract = load_checkpoint(checkpoint).contract
        np.save(folder / "inputs.npy", np.stack([preprocess(read_image(item.path), contract) for item in outside]))
        class_ids = np.array([contract.labels.index(item.label) for item in outside])
        files = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx", "8 bits": folder / "old.onnx"}
        export(checkpoint, files["fp32"])
        export(checkpoint, files["int8"], request=ExportConfig(precision="int8", allow_loss=True))
        export_with_8_bits(checkpoint, files["8 bits"])
        print(f"{len(outside)} frames of rooms held out; {processor_name()}")
        print(f"{'file':<8} {'processor':<12} {'accuracy':>8} {'labels unlike fp32':>19} {'unlike here':>12} {'ms':>7}")
        here = {name: ask([sys.executable], file, folder) for name, file in files.items()}
        there = {
            name: ask(["qemu-x86_64", "-cpu", "Haswell", sys.executable], file, folder) for name, file in files.items()
        }
        for processor, answers in (("this one", here), ("no VNNI", there)):
            for name, (labels, milliseconds) in answers.items():
                accuracy, unlike = (labels == class_ids).mean(), (labels != here["fp32"][0]).sum()
                moved = (labels != here[name][0]).sum()
                speed = f"{milliseconds:7.2f}" if processor == "this one" else "      -"  # an emulator's says nothing
                print(f"{name:<8} {processor:<12} {accuracy:8.3f} {unlike:19} {moved:12} {speed}")


def split_rooms(data: Path, inside: Path) -> list:
    """Copy two thirds of the rooms, and return the items of the others."""
    items = read_items(data)
    rooms = sorted({item.session for item in items})
    outside = [item for item in items if rooms.index(item.session) % 3 == 1]
    for item in items:
        if rooms.index(item.session) % 3 != 1:
            (inside / item.label).mkdir(parents=True, exist_ok=True)
            shutil.copy(item.path, inside / item.label)
    return outside


def export_with_8_bits(checkpoint: Path, out: Path) -> None:
    """Export int8 as it was before: weights of 8 bits."""
    quantize_static, can_saturate = quantize.quantization.quantize_static, to_onnx.can_saturate

    def with_8_bits(*arguments, reduce_range, **more):
        quantize_static(*arguments, **more)

    quantize.quantization.quantize_static, to_onnx.can_saturate = with_8_bits, lambda model: []
    try:
        export(checkpoint, out, request=ExportConfig(precision="int8", allow_loss=True))
    finally:
        quantize.quantization.quantize_static, to_onnx.can_saturate = quantize_static, can_saturate


def ask(python: list[str], model: Path, folder: Path) -> tuple[np.ndarray, float]:
    """Return the class ids that a model answers on a processor, and the median of its milliseconds."""
    command = [*python, "-c", ASK, str(model), str(folder / "inputs.npy"), str(folder / "answers.npy")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return np.load(folder / "answers.npy").argmax(1), float(done.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
