"""What this machine is, what runs here and how fast, and how to mend what does not.

    python live/doctor.py
    python live/doctor.py --model model.onnx --json

Exit code 0 if the live loop can run here, 2 if something keeps it from that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, NamedTuple

from teachcam import cli

if TYPE_CHECKING:
    from teachcam.live.classifier import Classifier

RUNS = 50  # of the model, to time it
HOT = 85.0  # degrees Celsius: a Jetson slows down from about here
SPACE = 1 << 30  # bytes free, below which recording ends soon
EXCLUSIVE = (  # packages that overwrite each other's files
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)


class Finding(NamedTuple):
    """One line of what the doctor says."""

    level: str  # "ok", "note", or "fault" for what keeps the live loop from running
    what: str
    mend: str = ""  # the command, or what else to do


def main(argv: list[str] | None = None) -> int:
    """Print every finding as it is made."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("runs/latest/model.onnx"), help="to run (the newest run's)")
    parser.add_argument("--camera", help="try this source only, as live/run.py takes it")
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout, for a report of a fault")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)  # where the tests lay a Jetson
    options = parser.parse_args(argv)
    found = []
    for check in (machine, packages, opencv, model, cameras, board, space):
        for finding in _examined(check, options):
            found.append(finding)
            if not options.json:
                print(f"{finding.level:<6}{finding.what}", flush=True)
                if finding.mend:
                    print(f"      -> {finding.mend}", flush=True)
    if options.json:
        print(json.dumps([finding._asdict() for finding in found], indent=1))
    return 2 if any(finding.level == "fault" for finding in found) else 0


def _examined(check: Callable, options: argparse.Namespace) -> Iterator[Finding]:
    """Make one check; whatever breaks it is a finding too, and the others go on."""
    try:
        yield from check(options)
    except Exception as error:
        mend = "pip install -r requirements.txt (on a Jetson: see README)" if isinstance(error, ImportError) else ""
        yield Finding("fault", f"{check.__name__}: {cli.first_line(error)}", mend)


def machine(options: argparse.Namespace) -> Iterator[Finding]:
    """The board or computer, its system, its GPU."""
    jetson = _read(options.root / "proc/device-tree/model").strip("\0\n ")
    release = re.search(r"R(\d+).*REVISION: ([\d.]+)", _read(options.root / "etc/nv_tegra_release"))
    l4t = f", L4T {release[1]}.{release[2]}" if release else ""
    yield Finding(
        "ok", f"{jetson or platform.platform()}{l4t}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    memory = dict(re.findall(r"(\w+): +(\d+) kB", _read(options.root / "proc/meminfo")))
    if "MemAvailable" in memory:
        available, total = (int(memory[name]) / 2**20 for name in ("MemAvailable", "MemTotal"))
        level, mend = ("ok", "") if available > 0.5 else ("note", "close other programs, or add swap")
        yield Finding(level, f"memory: {available:.1f} of {total:.1f} GB free", mend)
    gpu = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if gpu:
        yield Finding("ok", f"GPU: {gpu.splitlines()[0]}")


def packages(options: argparse.Namespace) -> Iterator[Finding]:
    """Versions, and packages that overwrite each other."""
    names = ("numpy", *EXCLUSIVE[0], *EXCLUSIVE[1], "traitlets", "torch", "starlette", "uvicorn")
    versions = {name: _version(name) for name in names}
    yield Finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for group in EXCLUSIVE:
        there = [name for name in group if _version(name)]
        if len(there) > 1:
            yield Finding(
                "fault",
                f"{' and '.join(there)} are both installed, and overwrite each other's files",
                f"pip uninstall -y {' '.join(there)} && pip install {there[-1]}",
            )


def opencv(options: argparse.Namespace) -> Iterator[Finding]:
    """What this OpenCV was built with, and whether there is a screen."""
    import cv2

    build = cv2.getBuildInformation()
    has = {
        name: bool(re.search(rf"^ *{name}[^:]*: +YES", build, re.MULTILINE)) for name in ("GStreamer", "FFMPEG", "v4l")
    }
    gui = re.search(r"^ *GUI: +(\S+)", build, re.MULTILINE)
    window = gui[1] if gui and gui[1] != "NONE" else "none"
    parts = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    yield Finding("ok", f"OpenCV {cv2.__version__}: {parts}, windows {window}")
    if not has["GStreamer"]:
        from_pip = " ".join(name for name in EXCLUSIVE[1] if _version(name))
        mend = "sudo apt install python3-opencv" + (f" && pip uninstall {from_pip}" if from_pip else "")
        yield Finding("note", "no GStreamer: csi: and gst: cameras can't be opened", mend)
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and (window == "none" or not screen):
        mend = "python live/run.py --headless --http 8080, or export DISPLAY=:0 where a screen is connected"
        yield Finding("note", "no screen to open a window on", mend)


def model(options: argparse.Namespace) -> Iterator[Finding]:
    """Which execution providers really run the model, and how fast."""
    import numpy as np
    import onnxruntime

    from teachcam.errors import ModelError
    from teachcam.live.classifier import Classifier
    from teachcam.onnx_session import PROVIDERS

    compiled = [name for name, known in PROVIDERS.items() if known in onnxruntime.get_available_providers()]
    if not options.model.exists():
        mend = "python train/finetune.py && python export/to_onnx.py"
        yield Finding("note", f"no model at {options.model} to try; ONNX Runtime has {', '.join(compiled)}", mend)
        return
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    classifier, reasons = None, []
    for name in compiled:
        try:
            candidate = Classifier(options.model, name)
        except ModelError as error:
            reasons.append(str(error))
            if name != "cpu":
                yield Finding("note", f"{name}: does not work here, though ONNX Runtime has it", _gpu_mend(name))
            continue
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            candidate.classify(image)
            times.append(time.perf_counter() - started)
        yield Finding("ok", f"{name}: {1000 * np.median(times):.2f} ms from a 480x640 frame to its label")
        classifier = classifier or candidate
        yield from _self_check(candidate, options.model)
    if classifier is None:
        yield Finding("fault", reasons[-1] if reasons else "no execution provider", "python export/to_onnx.py")
        return
    trained = classifier.contract.trained_on
    yield Finding("ok", f"{options.model}: {', '.join(classifier.contract.labels)}; {trained.backbone}")


def _self_check(classifier: Classifier, model: Path) -> Iterator[Finding]:
    """Ask the model about the images that travel with it."""
    try:
        difference = classifier.self_check()
    except cli.UserError as error:
        yield Finding("fault", f"{classifier.provider}: {error}", "python export/to_onnx.py, on this machine")
        return
    if difference is None:
        mend = "python export/to_onnx.py without --no-check-images"
        yield Finding("note", f"{model} was proved elsewhere, and carries no images to prove it here", mend)
    else:
        yield Finding("ok", f"{classifier.provider}: answers as where it was exported (difference {difference:.4f})")


def _gpu_mend(name: str) -> str:
    wanted = "TensorRT's libraries" if name == "tensorrt" else "CUDA and cuDNN"
    return f"install {wanted} for this ONNX Runtime if there is an NVIDIA GPU; the CPU is used otherwise"


def cameras(options: argparse.Namespace) -> Iterator[Finding]:
    """Cameras that answer."""
    from teachcam.collect.camera import Camera
    from teachcam.collect.probe import cameras as probe

    if options.camera:
        with Camera(options.camera) as camera:
            started, frames = time.monotonic(), 0
            while time.monotonic() - started < 1.0 and (frame := camera.read_frame(wait=5.0)) is not None:
                frames, shape = frames + 1, frame.image.shape
            rate = frames / (time.monotonic() - started)
            yield Finding("ok", f"camera {options.camera}: {shape[1]}x{shape[0]}, {rate:.0f} FPS measured")
        return
    found = list(probe())
    for camera in found:
        yield Finding("ok", f"camera {camera.source}: {camera.width}x{camera.height}, {camera.fps:g} FPS")
    closed = [path for path in Path("/dev").glob("video*") if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        mend = "sudo usermod -aG video $USER, then log in again"
        yield Finding("note", f"{', '.join(map(str, closed))}: not yours to open", mend)
    elif not found:
        yield Finding("note", "no camera answers", "connect one, or try --camera synthetic")


def board(options: argparse.Namespace) -> Iterator[Finding]:
    """A Jetson's power mode, and how hot it is."""
    mode = _output("nvpmodel", "-q")
    if mode:
        name = re.search(r"NV Power Mode: *(\S+)", mode)
        full = bool(re.search(r"^0$", mode, re.MULTILINE))
        level, mend = ("ok", "") if full else ("note", "sudo nvpmodel -m 0 && sudo jetson_clocks")
        yield Finding(level, f"power mode: {name[1] if name else mode.splitlines()[-1]}", mend)
        clocks = _output("jetson_clocks", "--show")
        limits = re.findall(r"cpu\d+:.*?MinFreq=(\d+) MaxFreq=(\d+)", clocks)
        if any(low != high for low, high in limits):
            yield Finding("note", "clocks vary with the load: answers after a pause come late", "sudo jetson_clocks")
    degrees = []
    for path in (options.root / "sys/class/thermal").glob("thermal_zone*/temp"):
        text = _read(path).strip()
        if text.lstrip("-").isdecimal():
            degrees.append(int(text) / 1000)
    if degrees:
        level, mend = ("ok", "") if max(degrees) < HOT else ("note", "cool it: it slows itself down")
        yield Finding(level, f"temperature: {max(degrees):.0f} degrees Celsius at the hottest", mend)


def space(options: argparse.Namespace) -> Iterator[Finding]:
    """Room for recordings."""
    free = shutil.disk_usage(Path.cwd()).free
    level, mend = ("ok", "") if free > SPACE else ("note", "free some space, or record elsewhere with --data")
    yield Finding(level, f"disk: {free / 2**30:.1f} GB free here", mend)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    """Return what a program prints, '' where it is not there, fails or hangs."""
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    cli.run(main)
