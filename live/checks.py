"""The doctor's checks of this machine. Each yields findings; the first import of a package is inside its check."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import time
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NamedTuple

from teachcam import cli
from teachcam.live.board import find_board, output_of, power_mode, read_text

if TYPE_CHECKING:
    from teachcam.live.classifier import Classifier

NUM_RUNS = 50  # of the model, to time it; the median of so many varies little
MIN_MEMORY = 0.5  # GB; the live loop takes 0.2 with a SqueezeNet on a CPU, and more on a GPU
MAX_TEMPERATURE = 85.0  # degrees Celsius; a Jetson slows down from about here
MIN_DISK_SPACE = 1 << 30  # bytes; 10,000 images of 640x480, at about 100 kB each
EXCLUSIVE = (  # packages that overwrite each other's files
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)


class Finding(NamedTuple):
    """One line of the doctor's report."""

    level: str  # "ok", "warning", or "error" for what prevents the live loop
    message: str
    fix: str = ""  # a command, or else what to do


def machine(options: argparse.Namespace) -> Iterator[Finding]:
    """Report the board or computer, its memory and its GPU."""
    board = find_board(options.root)
    name = f"{board.name}, L4T {board.l4t}" if board.l4t else board.name
    yield Finding("ok", f"Machine: {name}, {os.cpu_count()} cores, Python {platform.python_version()}.")
    memory = dict(re.findall(r"(\w+): +(\d+) kB", read_text(options.root / "proc/meminfo")))
    if "MemAvailable" in memory:
        available, total = (int(memory[name]) / 2**20 for name in ("MemAvailable", "MemTotal"))
        message = f"Memory: {available:.1f} of {total:.1f} GB are free."
        if available > MIN_MEMORY:
            yield Finding("ok", message)
        else:
            yield Finding("warning", f"{message} Loading a model may fail.", "close other programs, or add swap space")
    gpu = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if gpu:
        yield Finding("ok", f"GPU: {gpu.splitlines()[0]}.")


def packages(options: argparse.Namespace) -> Iterator[Finding]:
    """Report the versions of packages, and packages that overwrite each other."""
    web = ("starlette", "uvicorn", "wsproto", "prometheus-client")
    names = ("numpy", *EXCLUSIVE[0], *EXCLUSIVE[1], "pillow", "traitlets", "torch", *web)
    versions = {name: _version(name) for name in names}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("ok", f"Packages: {listed or 'none'}.")
    for group in EXCLUSIVE:
        installed = [name for name in group if _version(name)]
        if len(installed) > 1:
            yield Finding(
                "error",
                f"{' and '.join(installed)} are both installed, and overwrite each other's files.",
                f"pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}",
            )


def opencv(options: argparse.Namespace) -> Iterator[Finding]:
    """Report what this OpenCV was built with, and whether there is a screen."""
    import cv2

    from teachcam.collect.gstreamer import has_gstreamer

    build = cv2.getBuildInformation()
    features = {
        name: bool(re.search(rf"^ *{name}[^:]*: +YES", build, re.MULTILINE)) for name in ("GStreamer", "FFMPEG", "v4l")
    }
    gui = re.search(r"^ *GUI: +(\S+)", build, re.MULTILINE)
    windows = gui[1] if gui and gui[1] != "NONE" else "no"
    parts = ", ".join(f"{name}: {'yes' if there else 'no'}" for name, there in features.items())
    yield Finding("ok", f"OpenCV {cv2.__version__} was built with {parts}, windows: {windows}.")
    if not has_gstreamer():
        fix = "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
        yield Finding("warning", "There is no GStreamer, so csi: and gst: cameras can't be opened.", fix)
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and (windows == "no" or not screen):
        fix = "teachcam live --headless --http 8080, or export DISPLAY=:0 if a screen is connected"
        yield Finding("warning", "There is no screen to open a window on.", fix)


def model(options: argparse.Namespace) -> Iterator[Finding]:
    """Report which execution providers run the model, how fast, and whether its predictions are right here."""
    import numpy as np
    import onnxruntime

    from teachcam.errors import ModelError
    from teachcam.live.classifier import Classifier
    from teachcam.live.timing import median_times
    from teachcam.live.tuning import read_tuning
    from teachcam.onnx_session import PROVIDERS
    from teachcam.runs import resolve_latest

    providers = [name for name, full_name in PROVIDERS.items() if full_name in onnxruntime.get_available_providers()]
    if not resolve_latest(options.model).exists():
        message = f"There is no model at {options.model} to test. ONNX Runtime offers: {', '.join(providers)}."
        if find_spec("torch") is None:
            fix = "teachcam studio teaches one here; or copy one to this machine"
        elif resolve_latest(Path("runs/latest/checkpoint.pt")).exists():
            fix = "teachcam export"
        else:
            fix = "teachcam train && teachcam export"
        yield Finding("warning", message, fix)
        return
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    working, reason = None, "no execution provider works here"
    for provider in providers:
        try:
            classifier = Classifier(options.model, provider)
        except ModelError as error:
            reason = str(error)
            if provider != "cpu":
                message = f"{provider}: ONNX Runtime offers this provider, but it does not work here."
                yield Finding("warning", message, _gpu_fix(provider))
            continue
        (milliseconds,) = median_times({provider: partial(classifier.classify, image)}, NUM_RUNS).values()
        yield Finding("ok", f"{provider}: {milliseconds:.2f} ms from a 480x640 image to its label.")
        working = working or classifier
        yield from _check_predictions(classifier, options.model)
    if working is None:
        yield Finding("error", f"The model can't be used: {reason}.", "teachcam export")
        return
    backbone = working.contract.trained_on.backbone or "a network"
    yield Finding("ok", f"{options.model}: {backbone} with the labels {', '.join(working.contract.labels)}.")
    tuning = read_tuning(resolve_latest(options.model))
    if tuning:
        chosen = f"{tuning.idle.describe()}; beside busy programs {tuning.loaded.describe()}"
        yield Finding("ok", f"Tuned for this device: {chosen}.")
    else:
        message = "It was not tuned for this device: another precision or number of threads may be faster."
        yield Finding("ok", message, f"teachcam live --tune --model {options.model}")


def _check_predictions(classifier: Classifier, model: Path) -> Iterator[Finding]:
    """Compare the predictions for the images in the model's file with those from where it was exported."""
    try:
        difference = classifier.self_check()
    except cli.UserError as error:
        yield Finding("error", f"{classifier.provider}: {error}.", "teachcam export, on this machine")
        return
    if difference is None:
        message = f"{model} contains no images to check its predictions on this machine."
        yield Finding("warning", message, "teachcam export without --no-check-images")
    else:
        message = f"{classifier.provider}: predicts the same as where it was exported (difference {difference:.4f})."
        yield Finding("ok", message)


def _gpu_fix(provider: str) -> str:
    if provider == "cuda" and not Path("/etc/nv_tegra_release").exists():  # a Jetson has CUDA from JetPack
        return "on an NVIDIA GPU: pip install 'onnxruntime-gpu[cuda,cudnn]'; the CPU is used otherwise"
    libraries = "TensorRT's libraries" if provider == "tensorrt" else "CUDA and cuDNN"
    return f"on an NVIDIA GPU: install {libraries} for this version of ONNX Runtime; the CPU is used otherwise"


def cameras(options: argparse.Namespace) -> Iterator[Finding]:
    """Report the cameras that answer."""
    from teachcam.collect.camera_options import open_camera
    from teachcam.collect.probe import find_cameras

    if options.camera:
        with open_camera(options) as camera:
            started, num_frames = time.monotonic(), 0
            while time.monotonic() - started < 1.0 and (frame := camera.read_frame(wait=5.0)) is not None:
                num_frames, (height, width) = num_frames + 1, frame.image.shape[:2]
            rate = num_frames / (time.monotonic() - started)
            yield Finding("ok", f"Camera {camera.source}: {width}x{height}, {rate:.0f} FPS measured.")
        return
    found = list(find_cameras())
    for info in found:
        yield Finding("ok", f"Camera {info.source}: {info.width}x{info.height}, {info.fps:g} FPS.")
    forbidden = [str(path) for path in Path("/dev").glob("video*") if not os.access(path, os.R_OK | os.W_OK)]
    if forbidden:
        fix = "sudo usermod -aG video $USER, then log in again"
        yield Finding("warning", f"This user may not open {', '.join(forbidden)}.", fix)
    elif not found:
        yield Finding("warning", "No camera answers.", "connect one, or use --camera synthetic")


def board(options: argparse.Namespace) -> Iterator[Finding]:
    """Report a Jetson's power mode and clocks, and how hot the machine is."""
    mode = output_of("nvpmodel", "-q")
    if mode:
        message = f"Power mode: {power_mode()}."
        # Mode 0 is the fastest, except on an Orin Nano with JetPack 6.2 and later: there it is MAXN_SUPER.
        if re.search(r"^0$|MAXN", mode, re.MULTILINE):
            yield Finding("ok", message)
        else:
            message = f"{message} A faster one may exist."
            yield Finding("warning", message, "sudo nvpmodel -m 0 && sudo jetson_clocks")
        clocks = output_of("jetson_clocks", "--show")
        limits = re.findall(r"cpu\d+:.*?MinFreq=(\d+) MaxFreq=(\d+)", clocks)
        if any(low != high for low, high in limits):
            message = "The clocks vary with the load, so predictions after a pause are slow."
            yield Finding("warning", message, "sudo jetson_clocks")
    temperatures = []
    for path in (options.root / "sys/class/thermal").glob("thermal_zone*/temp"):
        text = read_text(path).strip()
        if text.lstrip("-").isdecimal():
            temperatures.append(int(text) / 1000)
    if temperatures:
        message = f"Temperature: {max(temperatures):.0f} degrees Celsius at the hottest place."
        if max(temperatures) < MAX_TEMPERATURE:
            yield Finding("ok", message)
        else:
            yield Finding("warning", f"{message} The machine slows itself down.", "cool it: clean or add a fan")


def disk(options: argparse.Namespace) -> Iterator[Finding]:
    """Report the space for recordings."""
    free = shutil.disk_usage(Path.cwd()).free
    message = f"Disk: {free / 2**30:.1f} GB are free in this folder."
    if free > MIN_DISK_SPACE:
        yield Finding("ok", message)
    else:
        yield Finding("warning", message, "delete files, or record to another disk with --data FOLDER")


def _version(package: str) -> str:
    """Return the version of an installed package, or ''."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


CHECKS = (machine, packages, opencv, model, cameras, board, disk)  # in the order of the report
