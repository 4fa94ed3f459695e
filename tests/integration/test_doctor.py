"""The doctor on this machine, and on one laid out as a Jetson."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, call

from teachcam.live import doctor


def program(folder, name: str, prints: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\n")
    path.chmod(0o755)


@pytest.fixture
def jetson(tmp_path, monkeypatch):
    """A file tree and programs as a Jetson Orin Nano has them: at half its power, and hot."""
    root = tmp_path / "root"
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/meminfo": "MemTotal:        7802892 kB\nMemFree:          204800 kB\nMemAvailable:     307200 kB\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "sys/class/thermal/thermal_zone0/temp": "45500\n",
        "sys/class/thermal/thermal_zone1/temp": "91250\n",
        "sys/class/thermal/thermal_zone2/temp": "",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs, "nvpmodel", "NV Power Mode: 7W\n1")
    program(programs, "jetson_clocks", "cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=1")
    program(programs, "nvidia-smi", "Orin (nvgpu), 540.4.0")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return root


def report(capsys, *arguments) -> tuple[int, dict[str, dict]]:
    code = doctor.main([*map(str, arguments), "--json", "--camera", "synthetic"])
    return code, {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}


def starting(found: dict, start: str) -> dict:
    (finding,) = [finding for what, finding in found.items() if what.startswith(start)]
    return finding


def test_on_this_machine_without_a_model(tmp_path):
    result = call("live/doctor.py", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no model at runs/latest/model.onnx" in result.stdout
    assert "-> python train/finetune.py && python export/to_onnx.py" in result.stdout
    assert "OpenCV" in result.stdout
    assert "Traceback" not in result.stderr


def test_with_a_model_it_tells_how_fast_it_is(trained, capsys):
    code, found = report(capsys, "--model", trained / "model.onnx")
    assert code == 0
    assert any(re.fullmatch(r"cpu: [\d.]+ ms from a 480x640 frame to its label", what) for what in found)
    assert starting(found, "cpu: answers as where it was exported")["level"] == "ok"
    assert "palm, thumbs_down, thumbs_up; squeezenet1_1" in starting(found, str(trained))["what"]
    assert starting(found, "camera synthetic: 640x480")["level"] == "ok"


def test_a_jetson_that_could_be_faster(jetson, capsys):
    _, found = report(capsys, "--root", jetson)
    assert "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3" in next(iter(found))
    assert starting(found, "memory: 0.3 of 7.4 GB free")["level"] == "note"
    assert starting(found, "GPU: ")["what"] == "GPU: Orin (nvgpu), 540.4.0"
    assert starting(found, "power mode: 7W")["mend"] == "sudo nvpmodel -m 0 && sudo jetson_clocks"
    assert starting(found, "clocks vary")["mend"] == "sudo jetson_clocks"
    assert starting(found, "temperature: 91 degrees")["level"] == "note"


def test_a_broken_model_is_a_fault_with_its_mend(tmp_path, capsys):
    (tmp_path / "half.onnx").write_bytes(b"half")
    code, found = report(capsys, "--model", tmp_path / "half.onnx")
    assert code == 2
    fault = starting(found, str(tmp_path / "half.onnx"))
    assert (fault["level"], fault["mend"]) == ("fault", "python export/to_onnx.py")


@pytest.mark.parametrize("package", ["onnxruntime", "cv2", "numpy"])
def test_a_package_that_does_not_load_is_a_fault_and_the_rest_is_examined(package, tmp_path):
    (tmp_path / f"{package}.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "live/doctor.py")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "libGL.so.1" in result.stdout
    assert "disk: " in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_packages_that_overwrite_each_other_are_a_fault(monkeypatch, capsys):
    both = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}
    monkeypatch.setattr(doctor, "_version", lambda name: both.get(name, ""))
    code, found = report(capsys)
    assert code == 2
    assert starting(found, "onnxruntime and onnxruntime-gpu are both")["mend"].startswith(
        "pip uninstall -y onnxruntime "
    )


def test_a_camera_that_is_not_there_is_a_fault_when_it_was_asked_for(capsys):
    assert doctor.main(["--camera", "gone.mp4"]) == 2
    assert "no camera, file or folder" in capsys.readouterr().out


def test_it_never_loads_torch():
    code = "import sys; from teachcam.live import doctor; doctor.main(['--camera', 'synthetic'])"
    subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"],
        check=True,
        timeout=60,
        capture_output=True,
    )
