"""Disks that are full or read-only, and files that may not be read: one line, nothing half written, nothing lost."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT, SMALL, assert_one_line_error, call_here

from teachcam.collect import dataset as dataset_module
from teachcam.collect.dataset import list_samples
from teachcam.errors import DatasetError
from teachcam.images import read_image
from teachcam.train.model.checkpoint import save_tensors

pytestmark = pytest.mark.slow
CAMERA = "synthetic?seed=1&fps=60&size=320x240"
# Without root's right to ignore the permissions of files, as an ordinary user would run it.
NO_OVERRIDE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []


def commands(dataset: Path, trained: Path) -> dict[str, list[object]]:
    """Return what is run, each in a folder of its own."""
    return {
        "capture": ["collect/capture.py", "--camera", CAMERA, "--label", "a", "--headless", "--fps", 0, "--max-frames",
                    60],
        "check": ["collect/check.py", "--data", dataset, "--html", "report.html"],
        "train": ["train/finetune.py", "--data", dataset, *SMALL, "--strategy", "head", "--epochs", 2,
                  "--no-refit", "--out", "run"],
        "export": ["export/to_onnx.py", "--checkpoint", trained / "checkpoint.pt", "--out", "model.onnx"],
        "live": ["live/run.py", "--model", trained / "model.onnx", "--camera", CAMERA, "--headless", "--json",
                 "--record", "video.mp4", "--save-uncertain", "uncertain", "--max-frames", 60],
        "teach": ["teach/teach.py", "--camera", CAMERA, "--label", "a", "b", "--delay", 0, "--examples", 6, "--place",
                  "here", "--max-frames", 3, "--out", "model.onnx"],
    }  # fmt: skip


def run(command: list[object], cwd: Path) -> subprocess.CompletedProcess:
    """Run a command, those that import torch in this process."""
    if str(command[0]).startswith(("train", "export", "collect/check")):
        return call_here(*command, cwd=cwd)
    return run_alone(*command, cwd=cwd)


def run_alone(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command in a process of its own, without root's right."""
    script, *arguments = map(str, command)
    return subprocess.run(
        [*NO_OVERRIDE, sys.executable, str(ROOT / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def assert_whole(folder: Path) -> None:
    """Check that nothing below a folder is half written."""
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".jpg":
            read_image(path)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a small disk, or changes its size, or makes it read-only."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mounted)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
        return mounted

    yield mount
    subprocess.run(["umount", "-l", str(mounted)], capture_output=True)


def test_tensors_that_do_not_fit_are_an_error_of_the_disk(tmp_path):
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # bytes; torch ends its archive after a failed write
    try:
        with pytest.raises(OSError, match="too large"):
            save_tensors(tmp_path / "tensors.pt", {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["capture", "check", "train", "export", "live", "teach"])
def test_a_full_disk_is_one_line_and_goes_on_when_there_is_room(dataset, trained, disk, count, rounds, name):
    rng, command = random.Random(name), commands(dataset, trained)[name]
    for _ in range(rounds(1, 8)):
        count("faults")
        folder = disk(f"size={rng.choice((4, 20, 60, 100, 300))}k")
        result = run(command, folder)
        assert "Traceback" not in result.stderr
        if result.returncode:
            assert_one_line_error(result)
            assert re.search(r"\w: No space left on device|free some space", result.stderr), result.stderr  # and where
        assert_whole(folder)
        disk("remount,size=80m")
        again = command
        if (folder / "run" / ".state" / "config.json").exists():
            again = ["train/finetune.py", "--resume", "run"]
        if name == "live":
            shutil.rmtree(folder / "uncertain", ignore_errors=True)
            (folder / "video.mp4").unlink(missing_ok=True)  # a recording is never overwritten
        result = run(again, folder)
        assert result.returncode == 0, result.stderr
        assert_whole(folder)
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("name", ["capture", "check", "train", "export", "live", "teach"])
def test_a_read_only_disk_is_one_line(dataset, trained, disk, count, name):
    count("faults")
    folder = disk("size=10m,ro")
    assert_one_line_error(run(commands(dataset, trained)[name], folder), "Read-only file system")


@pytest.fixture
def locked(tmp_path):
    """A function that takes all permissions from a path, or all but some."""
    paths = []

    def lock(path: Path, mode: int = 0) -> Path:
        paths.append(path)
        path.chmod(mode)
        return path

    yield lock
    for path in paths:
        path.chmod(0o755)


def test_what_may_not_be_read_or_written_is_one_line(dataset, trained, tmp_path, locked, count):
    if NO_OVERRIDE and shutil.which("setpriv") is None:
        pytest.skip("root passes over all permissions, and setpriv is not here to take that right away")
    data = Path(shutil.copytree(dataset, tmp_path / "data"))
    image = next((data / "palm").iterdir())
    locked(image)
    count("faults")
    found = run_alone("collect/check.py", cwd=tmp_path)
    assert "Traceback" not in found.stderr
    assert "1 unreadable file" in found.stdout
    image.chmod(0o644)
    capture = commands(dataset, trained)["capture"]
    model, checkpoint = (Path(shutil.copy(trained / name, tmp_path)) for name in ("model.onnx", "checkpoint.pt"))
    for path, mode, command, words in (
        (data / "palm", 0, ["collect/check.py"], ["palm", "Permission denied"]),
        (data / "palm", 0, ["train/finetune.py", "--strategy", "ridge"], ["palm", "Permission denied"]),
        (data, 0o555, capture, ["Permission denied"]),
        (data, 0, ["collect/check.py"], ["data", "Permission denied"]),
        (data / "sessions.jsonl", 0o444, [*capture[:4], "palm", *capture[5:]], ["sessions.jsonl", "Permission denied"]),
        (model, 0, ["live/run.py", "--model", model], ["readable"]),
        (checkpoint, 0, ["export/to_onnx.py", "--checkpoint", checkpoint], ["checkpoint.pt"]),
    ):  # fmt: skip
        count("faults")
        before = path.stat().st_mode
        locked(path, mode)
        result = run_alone(*command, cwd=tmp_path)
        path.chmod(before)
        assert_one_line_error(result, *words)
        assert_whole(tmp_path)
    assert len(list_samples(data)) >= 60


def test_a_label_that_disappears_while_it_is_read_has_no_images(tmp_path, monkeypatch, count):
    count("faults")
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(dataset_module, "label_folders", lambda data: [data / "a", data / "gone"])
    with pytest.raises(DatasetError, match="no images"):
        list_samples(tmp_path)
