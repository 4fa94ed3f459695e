"""Test the doctor on this machine, and on files and programs like those of a Jetson."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT, call

from teachcam.live import checks, doctor, tuning


def write_program(folder: Path, name: str, output: str) -> None:
    """Write a program that prints a text."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    path.chmod(0o755)


@pytest.fixture
def jetson(tmp_path, monkeypatch):
    """Files and programs as on a Jetson Orin Nano, in a slow power mode, hot, and short of memory."""
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
    write_program(programs, "nvpmodel", "NV Power Mode: 7W\n1")
    write_program(
        programs, "jetson_clocks", "cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1510400 CurrentFreq=1"
    )
    write_program(programs, "nvidia-smi", "Orin (nvgpu), 540.4.0")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return root


def report(capsys, *arguments) -> tuple[int, dict[str, dict]]:
    code = doctor.main([*map(str, arguments), "--json", "--camera", "synthetic"])
    return code, {finding["message"]: finding for finding in json.loads(capsys.readouterr().out)}


def starting(found: dict, start: str) -> dict:
    """Return the one finding whose message starts with a text."""
    (finding,) = [finding for message, finding in found.items() if message.startswith(start)]
    return finding


def test_on_this_machine_without_a_model(tmp_path):
    result = call("live/doctor.py", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "There is no model at runs/latest/model.onnx" in result.stdout
    assert "-> teachcam train && teachcam export" in result.stdout
    assert "OpenCV" in result.stdout
    assert "Traceback" not in result.stderr


def test_it_measures_how_fast_a_model_is(trained, capsys):
    code, found = report(capsys, "--model", trained / "model.onnx")
    assert code == 0
    assert any(re.fullmatch(r"cpu: [\d.]+ ms from a 480x640 image to its label\.", message) for message in found)
    assert starting(found, "cpu: predicts the same as where it was exported")["level"] == "ok"
    assert "teachcam live --tune" in starting(found, "It was not tuned for this device")["fix"]
    assert ": squeezenet1_1 with the labels palm, thumbs_down, thumbs_up." in starting(found, str(trained))["message"]
    assert starting(found, "Camera synthetic: 640x480")["level"] == "ok"


def test_it_reports_what_tuning_chose(run_copy, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "NUM_RUNS", 3)
    tuning.open_model(run_copy / "model.onnx", tune=True)
    _, found = report(capsys, "--model", run_copy / "model.onnx")
    assert "on cpu" in starting(found, "Tuned for this device: fp32")["message"]


def test_without_torch_it_proposes_teaching(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    _, found = report(capsys, "--model", tmp_path / "model.onnx")
    assert "teachcam studio" in starting(found, "There is no model at")["fix"]


def test_a_slow_and_hot_jetson_gets_the_commands_that_help(jetson, capsys):
    _, found = report(capsys, "--root", jetson)
    assert "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3" in next(iter(found))
    assert starting(found, "Memory: 0.3 of 7.4 GB are free.")["level"] == "warning"
    assert starting(found, "GPU: ")["message"] == "GPU: Orin (nvgpu), 540.4.0."
    assert starting(found, "Power mode: 7W.")["fix"] == "sudo nvpmodel -m 0 && sudo jetson_clocks"
    assert starting(found, "The clocks vary")["fix"] == "sudo jetson_clocks"
    assert starting(found, "Temperature: 91 degrees")["level"] == "warning"


@pytest.mark.parametrize("mode", ["MAXN\n0", "15W\n0", "MAXN_SUPER\n2"])
def test_the_fastest_power_mode_of_a_jetson_is_ok(mode, jetson, capsys):
    write_program(jetson.parent / "bin", "nvpmodel", f"NV Power Mode: {mode}")
    _, found = report(capsys, "--root", jetson)
    assert starting(found, "Power mode: ")["level"] == "ok"


def test_a_broken_model_is_an_error_with_a_fix(tmp_path, capsys):
    (tmp_path / "half.onnx").write_bytes(b"half")
    code, found = report(capsys, "--model", tmp_path / "half.onnx")
    assert code == 2
    error = starting(found, f"The model can't be used: {tmp_path / 'half.onnx'}")
    assert (error["level"], error["fix"]) == ("error", "teachcam export")


@pytest.mark.parametrize("package", ["onnxruntime", "cv2", "numpy"])
def test_a_package_that_does_not_load_is_an_error_and_the_other_checks_run(package, tmp_path):
    (tmp_path / f"{package}.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "live/doctor.py")]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 2
    assert "libGL.so.1" in result.stdout
    assert "Disk: " in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_packages_that_overwrite_each_other_are_an_error(monkeypatch, capsys):
    both = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}
    monkeypatch.setattr(checks, "_version", lambda name: both.get(name, ""))
    code, found = report(capsys)
    assert code == 2
    assert starting(found, "onnxruntime and onnxruntime-gpu are both")["fix"].startswith(
        "pip uninstall -y onnxruntime "
    )


def test_a_missing_camera_is_an_error_if_it_was_asked_for(capsys):
    assert doctor.main(["--camera", "gone.mp4"]) == 2
    assert "no camera, file or folder" in capsys.readouterr().out


def test_it_never_loads_torch():
    code = "import sys; from teachcam.live import doctor; doctor.main(['--camera', 'synthetic'])"
    subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"],
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )
