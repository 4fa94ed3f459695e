"""An int8 file answers the same on processors with other instructions: an emulator runs the live loop on them.

qemu-user emulates them: Intel's Haswell has AVX2 and no VNNI, as most laptops; the Cortex-A57 is the Jetson Nano's.
`make arm64` makes the arm64 Python that the latter needs.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from teachcam.collect.dataset import read_items
from teachcam.errors import ExportError
from teachcam.export import quantize, to_onnx
from teachcam.export.metadata import read_metadata
from teachcam.export.to_onnx import ExportConfig, export
from teachcam.images import read_image
from teachcam.onnx_session import answer

ARM64 = ROOT / "build" / "arm64"
HASWELL = ["qemu-x86_64", "-cpu", "Haswell", sys.executable]
CORTEX_A57 = ["qemu-aarch64", "-cpu", "cortex-a57", "-L", str(ARM64), str(ARM64 / "python")]
needs_haswell = pytest.mark.skipif(
    not (shutil.which("qemu-x86_64") and platform.machine() == "x86_64"), reason="needs qemu-x86_64, on x86"
)
needs_arm64 = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and (ARM64 / "ready").exists()), reason="needs qemu-aarch64 and `make arm64`"
)


@pytest.fixture(scope="module")
def pictures(dataset, tmp_path_factory) -> Path:
    """A folder of twelve frames."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, item in enumerate(read_items(dataset)[::5]):
        shutil.copy(item.path, folder / f"{number:02}.jpg")
    return folder


def ask(python: list[str], model: Path, pictures: Path, **environment: str) -> tuple[list[dict[str, float]], str]:
    """Return the probabilities that the live loop gives the pictures on a processor, and its stderr."""
    command = [*python, str(ROOT / "live/run.py"), "--model", str(model), "--camera", str(pictures)]
    result = subprocess.run(
        [*command, "--headless", "--json", "--smoothing", "0", "--provider", "cpu"],
        capture_output=True, text=True, check=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    return [json.loads(line)["probabilities"] for line in result.stdout.splitlines()], result.stderr


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    assert len(one) == len(other) == 12
    return max(abs(a[label] - b[label]) for a, b in zip(one, other, strict=True) for label in a)


@pytest.mark.parametrize("target", ["desktop", "jetpack5"])
@pytest.mark.parametrize(
    "processor", [pytest.param("haswell", marks=needs_haswell), pytest.param("cortex-a57", marks=needs_arm64)]
)
def test_int8_answers_the_same_on_other_processors(processor, target, run_copy, pictures, package_path):
    model = run_copy / "small.onnx"
    export(run_copy / "checkpoint.pt", model, request=ExportConfig(target, "int8"))
    here, _ = ask([sys.executable], model, pictures)
    if processor == "haswell":
        there, said = ask(HASWELL, model, pictures)
    else:
        there, said = ask(CORTEX_A57, model, pictures, PYTHONPATH=f"{package_path}:{ARM64 / 'site'}")
    assert "answers otherwise here" not in said
    # Integers are the same everywhere; what is left in float is not, nor is OpenCV's resizing on ARM.
    assert largest_difference(here, there) < (1e-4 if (processor, target) == ("haswell", "desktop") else 0.02)


@needs_haswell
def test_8_bit_weights_answer_otherwise_without_vnni_and_are_refused(run_copy, pictures, monkeypatch):
    quantize_static = quantize.quantization.quantize_static

    def with_8_bits(*arguments, reduce_range, **more):
        return quantize_static(*arguments, **more)

    monkeypatch.setattr(quantize.quantization, "quantize_static", with_8_bits)
    model = run_copy / "small.onnx"
    with pytest.raises(ExportError, match="can overflow on processors without VNNI"):
        export(run_copy / "checkpoint.pt", model, request=ExportConfig(precision="int8"))
    monkeypatch.setattr(to_onnx, "can_saturate", lambda _: [])
    export(run_copy / "checkpoint.pt", model, request=ExportConfig(precision="int8", allow_loss=True))
    there, _ = ask(HASWELL, model, pictures)
    assert largest_difference(exact_answers(model, pictures), there) > 0.02


def exact_answers(model: Path, pictures: Path) -> list[dict[str, float]]:
    contract, _ = read_metadata(model)
    rows = answer(model, [read_image(path) for path in sorted(pictures.iterdir())], contract)
    return [dict(zip(contract.labels, map(float, row), strict=True)) for row in rows]
