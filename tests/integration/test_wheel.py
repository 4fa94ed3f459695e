"""The wheel, installed into bare environments, does the whole job: beside a user's own train.py, and on Python 3.8."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import LABELS, ROOT, assert_one_line_error

pytestmark = [pytest.mark.slow, pytest.mark.network]
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


def python_in_new_environment(python: Path | str, folder: Path, *packages: str) -> Path:
    """Make a virtual environment and install packages; return its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    installed = folder / "bin" / "python"
    for wanted in (["--upgrade", "pip"], packages):
        command = [installed, "-m", "pip", "install", "-q", *wanted]
        subprocess.run(command, check=True, timeout=1200, stderr=subprocess.DEVNULL)
    return installed


def run(python: Path, *command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run a program of a Python's environment: `teachcam ...` or `python ...`."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [python.with_name(program), *arguments], cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=300
    )


def test_it_holds_the_pages_the_recipes_and_the_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"teachcam/train/recipes/{path.name}" for path in (ROOT / "train/recipes").glob("*.args")}
    pages = {"teachcam/live/web/page.html", "teachcam/train/report/report.html"}
    assert {*recipes, *pages, "teachcam/py.typed"} <= names
    assert not [name for name in names if name.startswith(("train/", "live/", "tests/", "teachcam/tests"))]


def test_the_whole_job_beside_a_users_own_modules(wheel, tmp_path):
    python = python_in_new_environment(sys.executable, tmp_path / "venv", f"{wheel}[train]")
    home = tmp_path / "home"
    home.mkdir()
    for name in ("train", "export", "live", "collect"):
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


def python_3_8() -> Path:
    found = sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python"))
    if not found and not os.environ.get("CI"):
        pytest.skip("there is no Python 3.8 here")
    assert found, "CI must try Python 3.8, and there is none: install one with pyenv"
    return found[-1]


def test_the_device_extra_on_python_3_8_without_torch(wheel, trained, tmp_path):
    python = python_in_new_environment(python_3_8(), tmp_path / "venv", f"{wheel}[device]")
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
