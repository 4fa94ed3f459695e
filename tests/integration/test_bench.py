"""Test the benchmark of a device, on this machine and on files like those of a Jetson."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import assert_one_line_error, call, call_here

from teachcam.export.verify import Validator
from teachcam.live import bench, tuning
from teachcam.live.board import find_board, read_watts


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def sensor(rails: dict[str, tuple[int, int]]) -> dict[str, str]:
    """Return the files of the power sensor from JetPack 5 on, for rails in mV and mA."""
    files = {"sys/class/hwmon/hwmon1/name": "ina3221\n"}
    for number, (rail, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"sys/class/hwmon/hwmon1/in{number}_label"] = f"{rail}\n"
        files[f"sys/class/hwmon/hwmon1/in{number}_input"] = f"{millivolts}\n"
        files[f"sys/class/hwmon/hwmon1/curr{number}_input"] = f"{milliamperes}\n"
    return files


def test_power_of_a_whole_module_and_of_rails(tmp_path):
    assert read_watts(tmp_path) is None
    write(tmp_path / "orin_nano", sensor({"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400)}))
    assert read_watts(tmp_path / "orin_nano") == pytest.approx(6.0)
    write(tmp_path / "agx_orin", sensor({"VDD_GPU_SOC": (19000, 100), "VDD_CPU_CV": (19000, 200)}))
    assert read_watts(tmp_path / "agx_orin") == pytest.approx(5.7)
    device = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {"rail_name_0": "POM_5V_IN", "in_power0_input": "2300", "rail_name_1": "POM_5V_GPU", "in_power1_input": "9"}
    write(tmp_path / "nano", {f"{device}/{name}": content for name, content in files.items()})
    assert read_watts(tmp_path / "nano") == pytest.approx(2.3)
    desktop = {"name": "nct6775", "in1_label": "VDD_IN", "in1_input": "1000", "curr1_input": "1000"}
    write(tmp_path / "desktop", {f"sys/class/hwmon/hwmon0/{name}": content for name, content in desktop.items()})
    assert read_watts(tmp_path / "desktop") is None


def test_the_jetpack_of_a_board(tmp_path):
    assert find_board(tmp_path).jetpack == ""
    write(tmp_path, {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n"})
    assert find_board(tmp_path).jetpack == "6 (L4T 36.4.3)"


@pytest.mark.slow
def test_the_table_has_every_precision_with_speed_and_energy(run_copy, dataset, tmp_path, monkeypatch):
    """On a clock of its own: a second has ten readings of the power, or fifty frames."""
    readings, frames = [], []
    monkeypatch.setattr(bench, "read_watts", lambda root: readings.append(read_watts(root)) or readings[-1])
    clock = {"perf_counter": lambda: len(readings) / 10, "monotonic": lambda: frames.append(0) or len(frames) / 50}
    monkeypatch.setattr(bench, "time", SimpleNamespace(**clock))
    monkeypatch.setattr(tuning, "NUM_RUNS", 3)
    monkeypatch.setattr(Validator, "accuracy_drop", lambda *_: 0.0)  # of images of 64 pixels int8 takes too much
    root = tmp_path / "root"
    write(root, sensor({"VDD_IN": (5000, 2000)}))
    write(root, {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0", "etc/nv_tegra_release": "# R36, REVISION: 4.3"})
    options = ("--model", run_copy / "model.onnx", "--data", dataset, "--seconds", 1, "--root", root)
    result = call_here("live/bench.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "- board: NVIDIA Jetson Orin Nano" in result.stdout
    assert "- JetPack: 6 (L4T 36.4.3), power mode unknown" in result.stdout
    rows = re.findall(
        r"\| (\w+) \| [\d.]+ MB \| cpu \| \d+ \| (\d+) \| ([\d.]+) / ([\d.]+) ms \| .* \| 10.0 W \| (\d+) mJ \|",
        result.stdout,
    )
    assert {row[0] for row in rows} == {"fp32", "int8"}
    for _, fps, p50, p99, millijoules in rows:
        assert float(p50) <= float(p99)
        assert int(millijoules) == pytest.approx(10_000 / int(fps), abs=1 + 10_000 / int(fps) ** 2)
    assert "torch2trt's figures for squeezenet1_1 with TensorRT in fp16: 248 FPS on a Nano, 1390 on a Xavier." in (
        result.stdout
    )


def test_a_missing_model_is_one_line(tmp_path):
    assert_one_line_error(call("live/bench.py", "--model", "no.onnx", cwd=tmp_path), "no.onnx")
