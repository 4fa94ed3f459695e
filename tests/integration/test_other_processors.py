"""Test that an int8 model predicts the same on processors with other instructions. An emulator runs the live loop.

qemu-user emulates Intel's Haswell, which has AVX2 and no VNNI like most laptops, and the Jetson Nano's Cortex-A57.
The Cortex-A57 needs an arm64 Python, which `make arm64` builds.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT

from teachcam.collect.dataset import list_samples
from teachcam.errors import ExportError
from teachcam.export import conversion, quantize
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.export.metadata import read_metadata
from teachcam.images import read_image
from teachcam.onnx_session import predict_probabilities
from teachcam.teach.backbone import Backbone
from teachcam.teach.teacher import FOLDER, Teacher

pytestmark = pytest.mark.slow
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
def image_folder(dataset, tmp_path_factory) -> Path:
    """A folder of twelve images of the dataset."""
    folder = tmp_path_factory.mktemp("images")
    for number, sample in enumerate(list_samples(dataset)[::5]):
        shutil.copy(sample.path, folder / f"{number:02}.jpg")
    return folder


def run_live(
    python: list[str], model: Path, image_folder: Path, **environment: str
) -> tuple[list[dict[str, float]], str]:
    """Run the live loop on a folder with some Python. Return the probabilities of each image, and stderr."""
    command = [*python, str(ROOT / "live/run.py"), "--model", str(model), "--camera", str(image_folder)]
    result = subprocess.run(
        [*command, "--headless", "--json", "--smoothing", "0", "--provider", "cpu"],
        capture_output=True, text=True, check=True, timeout=PATIENCE, env={**os.environ, **environment},
    )  # fmt: skip
    return [json.loads(line)["probabilities"] for line in result.stdout.splitlines()], result.stderr


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    assert len(one) == len(other) == 12
    return max(abs(a[label] - b[label]) for a, b in zip(one, other, strict=True) for label in a)


@pytest.mark.parametrize("target", ["desktop", "jetpack5"])
@pytest.mark.parametrize(
    "processor", [pytest.param("haswell", marks=needs_haswell), pytest.param("cortex-a57", marks=needs_arm64)]
)
def test_int8_predicts_the_same_on_other_processors(processor, target, run_copy, image_folder, package_path):
    model = run_copy / "small.onnx"
    export(run_copy / "checkpoint.pt", model, config=ExportConfig(target, "int8"))
    here, _ = run_live([sys.executable], model, image_folder)
    if processor == "haswell":
        there, stderr = run_live(HASWELL, model, image_folder)
    else:
        there, stderr = run_live(CORTEX_A57, model, image_folder, PYTHONPATH=f"{package_path}:{ARM64 / 'site'}")
    assert "predicts differently here" not in stderr
    # Integer sums are equal everywhere. The layers in float round differently, which moves a few int8 values by a step.
    assert largest_difference(here, there) < (1e-4 if (processor, target) == ("haswell", "desktop") else 0.03)


@needs_haswell
def test_8_bit_weights_predict_differently_without_vnni_and_are_refused(run_copy, image_folder, monkeypatch):
    quantize_static = quantize.quantization.quantize_static

    def with_8_bits(*arguments, reduce_range, **more):
        return quantize_static(*arguments, **more)

    monkeypatch.setattr(quantize.quantization, "quantize_static", with_8_bits)
    model = run_copy / "small.onnx"
    with pytest.raises(ExportError, match="can overflow on processors without VNNI"):
        export(run_copy / "checkpoint.pt", model, config=ExportConfig(precision="int8"))
    monkeypatch.setattr(conversion, "find_saturating_layers", lambda _: [])
    export(run_copy / "checkpoint.pt", model, config=ExportConfig(precision="int8", allow_accuracy_drop=True))
    there, _ = run_live(HASWELL, model, image_folder)
    assert largest_difference(exact_probabilities(model, image_folder), there) > 0.02


def exact_probabilities(model: Path, image_folder: Path) -> list[dict[str, float]]:
    contract, _ = read_metadata(model)
    rows = predict_probabilities(model, [read_image(path) for path in sorted(image_folder.iterdir())], contract)
    return [dict(zip(contract.labels, map(float, row), strict=True)) for row in rows]


@needs_arm64
def test_a_jetson_nanos_processor_learns_and_serves_the_page(image_folder, package_path, tmp_path):
    """What it was taught there predicts the same here."""
    outliers = Teacher(tmp_path / "data", Backbone(tmp_path / "data" / FOLDER, "cpu"))
    outliers.wait()  # their features are kept: the emulator would take ten minutes for them
    outliers.close()
    environment = {**os.environ, "PYTHONPATH": f"{package_path}:{ARM64 / 'site'}"}
    options = ["--camera", "synthetic?seed=3&fps=10", "--label", "a", "b", "--place", "kitchen", "--delay", "0.1"]
    command = [*CORTEX_A57, ROOT / "teach/teach.py", *options, "--examples", "6", "--max-frames", "1"]
    taught = subprocess.run(
        [*command, "--out", "model.onnx"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert taught.stdout.startswith("learned 6 images of a, 6 images of b"), taught.stderr
    model = tmp_path / "model.onnx"
    here, _ = run_live([sys.executable], model, image_folder)
    there, _ = run_live(CORTEX_A57, model, image_folder, PYTHONPATH=environment["PYTHONPATH"])
    assert [max(one, key=one.get) for one in here] == [max(one, key=one.get) for one in there]
    assert largest_difference(here, there) < 1e-3
    command = [
        *CORTEX_A57,
        ROOT / "live/run.py",
        "--model",
        model,
        "--camera",
        "synthetic",
        "--headless",
        "--http",
        "0",
    ]
    live = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url = next(match[0] for line in live.stderr if (match := re.search(r"http://\S+", line)))
        assert b"teachcam" in urllib.request.urlopen(url, timeout=PATIENCE).read()
        events = urllib.request.urlopen(f"{url}events", timeout=PATIENCE)
        assert set(json.loads(events.readline()[6:])["labels"]) == {"a", "b"}
    finally:
        live.kill()
        live.communicate()
