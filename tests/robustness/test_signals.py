"""Signals at every stage of every command: an exit code, no traceback, nothing half written, nothing left running."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import psutil
import pytest
from conftest import PATIENCE, ROOT, call_here, wait_until

from teachcam.collect.dataset import SESSIONS_FILE, list_samples
from teachcam.errors import DatasetError
from teachcam.images import read_image
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.run import load_interrupted_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
CAMERA = "synthetic?seed=1&fps=60&size=160x120"
LATEST = {"capture": 3, "train": 12, "export": 6, "live": 3, "teach": 10, "studio": 6}  # seconds until the signal


def commands(dataset: Path, trained: Path) -> dict[str, list[object]]:
    """Return what is run, each in a folder of its own. Most would go on for minutes."""
    return {
        "capture": ["collect/capture.py", "--camera", CAMERA, "--label", "a", "b", "--headless", "--fps", 0, "--delay",
                    0, "--max-frames", 500],
        "train": ["train/finetune.py", "--data", dataset, "--backbone", "squeezenet1_1", "--strategy", "full",
                  "--epochs", 50, "--out", "runs/run"],
        "export": ["export/to_onnx.py", "--checkpoint", trained / "checkpoint.pt", "--out", "model.onnx"],
        "live": ["live/run.py", "--model", trained / "model.onnx", "--camera", CAMERA, "--headless", "--json", "--http",
                 0, "--record", "video.mp4", "--save-uncertain", "uncertain"],
        "teach": ["teach/teach.py", "--camera", CAMERA, "--label", "a", "b", "--delay", 0, "--examples", 6, "--place",
                  "here", "--out", "model.onnx"],
        "studio": ["teach/studio.py", "--camera", CAMERA, "--http", 0],
    }  # fmt: skip


SLOW_DISK = """
import os, signal, threading, time
from types import SimpleNamespace
import numpy as np
from teachcam import cli
from teachcam.collect.camera import Frame
from teachcam.collect.dataset import Session
from teachcam.collect.recorder import Recorder
save = Session.save
def save_slowly(session, image):
    time.sleep(0.1)
    return save(session, image)
Session.save = save_slowly
def main():
    camera = SimpleNamespace(live=False, metadata={}, on_each_frame=lambda function: None)
    with Recorder(camera, "data", "a", fps=0) as recorder:
        recorder.start()
        for number in range(30):
            recorder.add_frame(Frame(np.zeros((8, 8, 3), np.uint8), number, number / 30, 0.0))
        for delay in (0.2, 0.7, 1.2):
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(60)
cli.run(main)
"""


def test_ctrl_c_again_and_again_loses_no_recorded_image(tmp_path, count):
    """The first ends the recording, the others the wait for the disk; the images are written all the same."""
    count("faults")
    done = subprocess.run(
        [sys.executable, "-c", SLOW_DISK], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    assert len(list_samples(tmp_path / "data")) == 30


def test_a_stuck_disk_does_not_hold_up_the_end(tmp_path, count):
    count("faults")
    script = SLOW_DISK.replace("time.sleep(0.1)", "time.sleep(1000)")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "data").rglob("*.tmp"))


def catches(process: subprocess.Popen, number: int) -> bool:
    """Return whether a process has its own handler of a signal, or has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1) or process.poll() is not None


def assert_nothing_half_written(folder: Path, killed: bool) -> None:
    """Check all files below a folder. After SIGKILL, a hidden file that was being written may be left."""
    for path in folder.rglob("*"):
        assert killed or not path.name.endswith(".tmp"), path
        if path.name.startswith("."):
            continue
        if path.suffix == ".jpg":
            read_image(path)
        elif path.name == "model.onnx":
            onnx.checker.check_model(str(path), full_check=True)
        elif path.name == "checkpoint.pt":
            load_checkpoint(path)
        elif path.name == "metrics.json":
            json.loads(path.read_text())
    try:
        samples = list_samples(folder / "data")
    except DatasetError:
        return
    lines = (
        (folder / "data" / SESSIONS_FILE).read_text().splitlines() if (folder / "data" / SESSIONS_FILE).exists() else []
    )
    if not killed:
        assert {sample.session for sample in samples} == {json.loads(line)["session"] for line in lines}


@pytest.mark.parametrize("name", LATEST)
def test_a_signal_at_any_moment(dataset, trained, tmp_path, count, rounds, name):
    rng = random.Random(None if rounds(0, 1) else name)
    script, *arguments = map(str, commands(dataset, trained)[name])
    for number in range(rounds(2, 30)):
        count("faults")
        folder = tmp_path / str(number)
        folder.mkdir()
        sent = [rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])]
        if rng.random() < 0.4 and sent[0] != signal.SIGKILL:  # who is in a hurry presses Ctrl-C again
            sent += [signal.SIGINT] * rng.randint(1, 3)
        moment = rng.random() ** 2 * LATEST[name]
        command = [sys.executable, str(ROOT / script), *arguments]
        with (folder / "messages").open("w") as messages:
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=messages)
            wait_until(lambda one=process: catches(one, signal.SIGTERM))
            time.sleep(moment)
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for one in sent:
                process.send_signal(one)
                time.sleep(0.05)
            process.wait(PATIENCE)
        said = (folder / "messages").read_text()
        about = f"{sent} after {moment:.2f} s: exit code {process.returncode}, {said}"
        killed = process.returncode == -signal.SIGKILL
        # While the interpreter ends, a signal has its default effect: the second one, or the first after the work.
        has_finished = name == "export" and (folder / "model.onnx").exists()
        may_end_it = sent if has_finished else sent[1:]
        assert killed or process.returncode in {0, 130, *(-one for one in may_end_it)}, about
        assert "Traceback" not in said, about
        assert "Exception" not in said, about
        wait_until(lambda found=children: not psutil.wait_procs(found, timeout=0)[1])
        assert_nothing_half_written(folder, killed)
        _go_on(name, folder)


def _go_on(name: str, folder: Path) -> None:
    """Check that the next command can use what there is."""
    run = folder / "runs" / "run"
    if name == "train" and (run / ".state" / "config.json").exists():
        assert load_interrupted_run(run).strategy == "full"  # `--resume` itself: tests/integration/test_resume.py
    if name in ("capture", "teach") and (folder / "data").is_dir():
        found = call_here("collect/check.py", cwd=folder)
        assert "Traceback" not in found.stderr
        assert "unreadable" not in found.stdout.split("\n\n")[-1]
