"""Build the TensorRT engine of an exported model, on the device that will run it.

    python export/engine.py model.onnx

An engine works for one ONNX file, one version of TensorRT and one GPU only, so its file name contains all three.
`trtexec` builds it, which comes with TensorRT. The engine is for programs of your own: live/run.py runs the ONNX file
itself.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("engine")

import hashlib
import logging
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from teachcam import cli
from teachcam.errors import ExportError
from teachcam.export.metadata import read_metadata
from teachcam.files import expand, write_atomic

JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # JetPack installs it here, outside of PATH
FLAGS = {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}  # of trtexec

logger = logging.getLogger("teachcam.export.engine")


def main(argv: list[str] | None = None) -> int:
    """Build the engine, unless it exists already, and print its path. Return the exit code."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=expand, help="the ONNX file, written by teachcam export")
    parser.add_argument(
        "--cache", type=expand, metavar="DIR", help="the folder for engines (default: the folder of the ONNX file)"
    )
    options = parser.parse_args(argv)
    _, export_info = read_metadata(options.model)
    if not export_info:
        raise ExportError(f"{options.model} does not say how it was exported: export it with teachcam export")
    trtexec = shutil.which("trtexec") or shutil.which(JETPACK_TRTEXEC)
    if trtexec is None:
        command = shlex.join(trtexec_command("trtexec", options.model, Path("model.engine"), export_info))
        raise ExportError(
            "trtexec is not installed: run this command on the device (JetPack has it: sudo apt install "
            f"nvidia-jetpack), or run there: {command}"
        )
    version = _trtexec_version(trtexec)
    engine = engine_path(options.cache or options.model.parent, options.model, version, _gpu_name())
    if engine.is_file():
        print(f"{engine}: built before")
        return 0
    started = time.monotonic()
    logger.info("building for %s with TensorRT %s: this takes minutes", _gpu_name(), version)
    content = _build(trtexec, options.model, export_info)
    engine.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(engine, content)
    print(f"{engine}: built in {time.monotonic() - started:.0f} s")
    return 0


def engine_path(folder: Path, model: Path, version: str, gpu: str) -> Path:
    """Return the path of a model's engine, which contains a hash of the model, TensorRT's version and the GPU."""
    content = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    gpu = re.sub(r"\W+", "-", gpu.lower()).strip("-")
    return folder / f"{model.stem}-{content}-trt{version}-{gpu}.engine"


def trtexec_command(trtexec: str, model: Path, engine: Path, export_info: dict) -> list[str]:
    """Return the trtexec command that builds an engine.

    Args:
        trtexec: The program's path.
        model: The ONNX file.
        engine: The file that trtexec will write.
        export_info: The ONNX file's metadata: its precision and batch sizes decide the options.
    """
    command = [trtexec, f"--onnx={model}", f"--saveEngine={engine}", *FLAGS[export_info["precision"]]]
    if export_info["dynamic_batch"]:
        height, width = read_metadata(model)[0].input_size
        for name, batch in zip(("min", "opt", "max"), export_info["profile"]):
            command.append(f"--{name}Shapes=images:{batch}x{height}x{width}x3")
    return command


def _trtexec_version(trtexec: str) -> str:
    """Return the version that trtexec prints, such as 8502 for 8.5.2."""
    text = subprocess.run([trtexec, "--help"], capture_output=True, text=True).stdout
    match = re.search(r"TensorRT[. ]v(\d+)", text)
    return match.group(1) if match else "unknown"


def _gpu_name() -> str:
    """Return a Jetson's model name from its device tree, or the GPU's name from NVIDIA's driver."""
    device_tree = Path("/proc/device-tree/model")
    if device_tree.is_file():
        return device_tree.read_text().strip("\0 \n")
    try:
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = []
    return names[0] if names else "unknown"


def _build(trtexec: str, model: Path, export_info: dict) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "model.engine"
        command = trtexec_command(trtexec, model, engine, export_info)
        done = subprocess.run(command, stdout=sys.stderr)  # shows its progress
        if done.returncode or not engine.is_file():
            raise ExportError(f"trtexec failed with exit code {done.returncode}: {shlex.join(command)}")
        return engine.read_bytes()
