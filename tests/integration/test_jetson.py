"""Test the scripts for a Jetson: on the files of one, with systemd's own checks, and with a real socket.

tests/jetson_root.sh installs and runs everything in a Debian of its own, where systemd starts the service.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT, Clock

from teachcam.live.sinks import watchdog
from teachcam.live.sinks.watchdog import Watchdog

JETSON = ROOT / "live/jetson"
SCRIPTS = [*sorted(JETSON.glob("*.sh")), ROOT / "tests/jetson_root.sh", ROOT / "tests/arm64_root.sh"]
ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
linux_only = pytest.mark.skipif(not shutil.which("bash") or os.name != "posix", reason="needs bash")
pytestmark = linux_only


def needs(program: str):
    return pytest.mark.skipif(not shutil.which(program), reason=f"needs {program}")


@pytest.fixture
def board(tmp_path):
    """Return a function that makes the files of a Jetson, and runs a script of live/jetson/ on them."""
    root = tmp_path / "root"

    def run(script: str, *arguments: object, release: str = "", packages: str = "", **environment: str):
        for name, content in {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/nv_tegra_release": release,
            "var/lib/dpkg/status": packages,
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        inherited = {key: value for key, value in os.environ.items() if key not in ("SUDO_USER", "TEACHCAM_WHEELS")}
        environment = {"TEACHCAM_ROOT": str(root), "TEACHCAM_VENV": str(tmp_path / "venv"), **environment}
        return subprocess.run(
            [str(JETSON / script), *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, env={**inherited, **environment},
        )  # fmt: skip

    return run


def commands(result: subprocess.CompletedProcess) -> list[str]:
    """Return the commands of a dry run."""
    assert result.returncode == 0, result.stderr
    return [line[2:] for line in result.stdout.splitlines() if line.startswith("+ ")]


def package(name: str, version: str) -> str:
    return f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: arm64\n\n"


@needs("shellcheck")
def test_the_scripts_are_clean():
    result = subprocess.run(["shellcheck", "-x", *SCRIPTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("release", "jetpack", "python", "index"),
    [
        ("R32 (release), REVISION: 7.1", "4.6", "python3.8", None),
        ("R35 (release), REVISION: 4.1", "5.1", "python3", "jp5/cu114"),
        ("R36 (release), REVISION: 2.0", "6.0", "python3", "jp6/cu122"),
        ("R36 (release), REVISION: 3.0", "6.0", "python3", "jp6/cu122"),
        ("R36 (release), REVISION: 4.3", "6.1 or 6.2", "python3", "jp6/cu126"),
        ("R38 (release), REVISION: 2.0", "7", "python3", "sbsa/cu130"),
    ],
)
def test_a_dry_run_on_each_jetpack_prints_its_commands_and_changes_nothing(
    board, tmp_path, release, jetpack, python, index
):
    result = board("install.sh", "--dry-run", release=f"# {release}, GCID: 1, BOARD: generic\n")
    before = sorted(tmp_path.rglob("*"))
    assert f"Board: NVIDIA Jetson Orin Nano Developer Kit, NVIDIA's Linux {release.split()[0]}" in result.stdout
    assert f"JetPack {jetpack}." in result.stdout
    printed = commands(result)
    (venv,) = [line for line in printed if " -m venv " in line]
    assert venv.startswith(f"{python} -m venv ")
    assert ("--system-site-packages" in venv) == (jetpack != "4.6")  # its packages are for Python 3.6
    (onnxruntime,) = [
        line for line in printed if "pip" in line and re.search(r"(download|install) .*onnxruntime", line)
    ][:1]
    assert "install onnxruntime " in onnxruntime
    assert "https://elinux.org/Jetson_Zoo#ONNX_Runtime" in result.stdout
    assert ("Jetson AI Lab, its part" in result.stdout) == bool(index)
    if index:
        assert f"its part {index}." in result.stdout
    else:
        assert any(re.search(r"apt-get install .*gstreamer1.0-tools", line) for line in printed)
    assert printed[-1].endswith("live/doctor.py")
    assert not any("torch " in line for line in printed)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path / "venv").exists()


def test_the_release_is_also_found_in_nvidias_packages(board):
    packages = package("nvidia-l4t-core", "35.4.1-20230801124926") + package("nvidia-jetpack", "5.1.2-b104")
    result = board("install.sh", "--dry-run", packages=packages + package("gstreamer1.0-tools", "1.16.3"))
    assert "NVIDIA's Linux R35.4: JetPack 5.1 (nvidia-jetpack 5.1.2-b104)." in result.stdout
    assert "gstreamer1.0-tools" not in "".join(commands(result))


def test_the_wheels_may_lie_elsewhere(board, tmp_path):
    result = board("install.sh", "--dry-run", release=ORIN, TEACHCAM_WHEELS="https://example.org/simple")
    assert any("--index-url https://example.org/simple " in line for line in commands(result))
    result = board("install.sh", "--dry-run", release=ORIN, TEACHCAM_WHEELS=str(tmp_path))
    assert any(f"--no-index --find-links {tmp_path} " in line for line in commands(result))


def test_training_needs_jetpack_6(board):
    assert_one_line(board("install.sh", "--dry-run", "--train", release=ORIN), "set TEACHCAM_WHEELS")
    result = board("install.sh", "--dry-run", "--train", release=ORIN, TEACHCAM_WHEELS="https://example.org/simple")
    assert any(line.endswith("torch torchvision") for line in commands(result))
    result = board("install.sh", "--dry-run", "--train", release="# R35 (release), REVISION: 4.1,\n")
    assert_one_line(result, "training needs Python 3.10")


def test_another_computer_gets_the_ordinary_packages(board):
    result = board("install.sh", "--dry-run")
    assert "This is no Jetson" in result.stdout
    assert any(re.search(r"-e .*\\\[device(-cpu)?\\,web\\\]$", line) for line in commands(result))


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("install.sh", ["--trian"], "--trian is not an option"),
        ("install.sh", [], "NVIDIA's Linux R28.2 is not known here"),
        ("demo.sh", ["--camera"], "--camera needs a value"),
        ("demo.sh", ["model.onnx"], "model.onnx is not an option"),
        ("demo.sh", [], "run live/jetson/install.sh first"),
        ("service.sh", [], "give the ONNX file"),
        ("service.sh", ["none.onnx"], "there is no file none.onnx"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(board, script, arguments, message):
    assert_one_line(board(script, *arguments, release="# R28 (release), REVISION: 2.1,\n"), message)


def assert_one_line(result: subprocess.CompletedProcess, message: str) -> None:
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_the_script_installs_what_the_extras_name():
    extras = (ROOT / "pyproject.toml").read_text()
    script = (JETSON / "install.sh").read_text()

    def in_extra(name: str) -> set[str]:
        body = re.search(rf"^{name} = \[(.*?)\]$", extras, re.DOTALL | re.MULTILINE)[1]
        return set(re.findall(r'"([\w.<>=-]+)[";]', body))

    def in_script(name: str) -> set[str]:
        return set(shlex.split(re.search(rf"^{name}_packages=\((.*?)\)$", script, re.DOTALL | re.MULTILINE)[1]))

    own = {"opencv-python>=4.2", "onnxruntime>=1.10"}  # of the Jetson
    assert in_script("device") == (in_extra("device-cpu") | in_extra("web")) - own
    assert in_script("train") == in_extra("torch") - {"torch", "torchvision"}


@pytest.fixture
def unit(board, tmp_path) -> Path:
    """The service's unit file, filled in for a board with two devices. Its Python is this one's."""
    (tmp_path / "model.onnx").touch()
    (tmp_path / "root/dev/nvgpu/igpu0").mkdir(parents=True)
    for name in ("nvmap", "nvgpu/igpu0/ctrl"):
        (tmp_path / "root/dev" / name).touch()
    (tmp_path / "venv/bin").mkdir(parents=True)
    shutil.copy("/bin/sh", tmp_path / "venv/bin/python")
    result = board("service.sh", "--print", "model.onnx", "--camera", "csi:0", "--on", 'palm=echo "50 %" $HOME')
    assert result.returncode == 0, result.stderr
    path = tmp_path / "teachcam.service"
    path.write_text(result.stdout)
    return path


def test_the_service_is_filled_in(unit):
    text = unit.read_text()
    assert not re.search(r"@[A-Z]+@", text)
    assert r'--headless "--camera" "csi:0" "--on" "palm=echo \"50 %%\" $$HOME"' in text
    assert re.findall("DeviceAllow=(.*)", text) == ["char-video4linux rw", "/dev/nvmap rw", "/dev/nvgpu/igpu0/ctrl rw"]


@needs("systemd-analyze")
def test_systemd_accepts_the_service(unit):
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (result.returncode, [line for line in result.stderr.splitlines() if "teachcam" in line]) == (0, [])


@needs("systemd-analyze")
def test_the_service_may_do_little(unit):
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in result.stderr:
        pytest.skip("needs systemd 250")
    assert float(re.search(r"exposure level for teachcam.service: ([\d.]+)", result.stdout)[1]) < 3


def receive_all(receiver: socket.socket) -> list[bytes]:
    """Return the messages that have arrived."""
    messages = []
    while True:
        try:
            messages.append(receiver.recv(100, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return messages


@pytest.mark.parametrize("abstract", [False, True])
def test_the_watchdog_tells_systemd_that_results_come(tmp_path, monkeypatch, abstract):
    address = f"@teachcam-{os.getpid()}" if abstract else str(tmp_path / "notify")
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        sink = Watchdog(address)
        assert receive_all(systemd) == []  # nothing before the first result
        assert sink(None)
        assert receive_all(systemd) == [b"READY=1"]
        for _ in range(25):  # results of 12.5 seconds
            clock.now += 0.1 * watchdog.INTERVAL
            assert sink(None)
        sink.close()
        assert receive_all(systemd) == [b"WATCHDOG=1", b"WATCHDOG=1"]


def test_the_watchdog_never_waits_and_repeats_what_did_not_fit(tmp_path):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        systemd.bind(str(tmp_path / "notify"))
        other.connect(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10000):  # the queue takes a few hundred at most
                other.send(b"of another service")
        sink = Watchdog(str(tmp_path / "notify"))
        assert sink(None)
        assert set(receive_all(systemd)) == {b"of another service"}
        assert sink(None)
        assert receive_all(systemd) == [b"READY=1"]
        sink.close()


def test_a_socket_that_is_not_there_yet_is_warned_of_once_and_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watchdog, "INTERVAL", 0.0)
    sink = Watchdog(str(tmp_path / "notify"))
    assert sink(None)
    assert sink(None)
    assert [record.getMessage() for record in caplog.records] == [
        "can't tell systemd that this program runs: No such file or directory"
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        assert sink(None)
        assert receive_all(systemd) == [b"READY=1"]
    sink.close()
