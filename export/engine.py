"""Build the TensorRT engine of an exported model, on the device that will run it.

    python export/engine.py model.onnx
    python export/engine.py model.onnx --data data

An engine works for one ONNX file, one version of TensorRT and one GPU only, so its file name contains all three. It is
built with TensorRT's Python package, or with `trtexec` where that is missing. The engine is for programs of your own:
live/run.py runs the ONNX file itself.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("engine")

import ctypes
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

import numpy as np

from teachcam import cli
from teachcam.collect.dataset import list_samples
from teachcam.contract import Contract
from teachcam.errors import ExportError
from teachcam.export.metadata import read_metadata
from teachcam.export.parity import TOLERANCE, compare
from teachcam.files import expand, write_atomic
from teachcam.images import read_image
from teachcam.onnx_session import make_batches, predict_probabilities

JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # JetPack installs it here, outside of PATH
NUM_IMAGES = 50  # to compare an engine on
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # CUDA's cudaMemcpyKind
ENGINE_TOLERANCE = 5e-2  # the largest difference of a probability in fp16 and int8: an engine rounds and adds otherwise
BUILDER_FLAGS = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}

logger = logging.getLogger("teachcam.export.engine")


def main(argv: list[str] | None = None) -> int:
    """Build the engine, unless it exists already, and print its path. Return the exit code."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=expand, help="the ONNX file, written by teachcam export")
    parser.add_argument(
        "--data",
        type=expand,
        metavar="DIR",
        help=f"a dataset: the engine is compared with the ONNX file on about {NUM_IMAGES} of its images",
    )
    parser.add_argument(
        "--cache", type=expand, metavar="DIR", help="the folder for engines (default: the folder of the ONNX file)"
    )
    options = parser.parse_args(argv)
    contract, export_info = read_metadata(options.model)
    if not export_info:
        raise ExportError(f"{options.model} does not say how it was exported: export it with teachcam export")
    trtexec = shutil.which("trtexec") or shutil.which(JETPACK_TRTEXEC)
    try:
        import tensorrt
    except ImportError:
        tensorrt = None
    version = tensorrt.__version__ if tensorrt else _trtexec_version(trtexec)
    if version is None:
        command = shlex.join(trtexec_command("trtexec", options.model, Path("model.engine"), export_info))
        raise ExportError(
            "TensorRT is not installed, neither its Python package nor trtexec: run this command on the device "
            f"(JetPack installs both: sudo apt install nvidia-jetpack), or run there: {command}"
        )
    engine = engine_path(options.cache or options.model.parent, options.model, version, _gpu_name())
    if engine.is_file():
        print(f"{engine}: built before")
        return 0
    started = time.monotonic()
    logger.info("building for %s with TensorRT %s: this takes minutes", _gpu_name(), version)
    if tensorrt:
        content = _build_with_tensorrt(tensorrt, options.model, export_info)
    else:
        content = _build_with_trtexec(trtexec, options.model, export_info)
    verify = tensorrt is not None and options.data is not None
    if verify:
        _verify(tensorrt, content, options.model, options.data, contract, export_info)
    engine.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(engine, content)
    print(f"{engine}: built in {time.monotonic() - started:.0f} s")
    if not verify:
        logger.info("the engine was not verified: this needs TensorRT's Python package, and images: give --data DIR")
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
    command = [trtexec, f"--onnx={model}", f"--saveEngine={engine}"]
    command += [f"--{flag.lower()}" for flag in BUILDER_FLAGS[export_info["precision"]]]
    if export_info["dynamic_batch"]:
        height, width = read_metadata(model)[0].input_size
        for name, batch in zip(("min", "opt", "max"), export_info["profile"]):
            command.append(f"--{name}Shapes=images:{batch}x{height}x{width}x3")
    return command


def _trtexec_version(trtexec: str | None) -> str | None:
    """Return the version that trtexec prints, such as 8502 for 8.5.2; None without trtexec."""
    if trtexec is None:
        return None
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


def _build_with_trtexec(trtexec: str, model: Path, export_info: dict) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "model.engine"
        command = trtexec_command(trtexec, model, engine, export_info)
        done = subprocess.run(command, stdout=sys.stderr)  # shows its progress
        if done.returncode or not engine.is_file():
            raise ExportError(f"trtexec failed with exit code {done.returncode}: {shlex.join(command)}")
        return engine.read_bytes()


def _build_with_tensorrt(trt, model: Path, export_info: dict) -> bytes:
    """Build an engine with TensorRT's Python package `trt` and return the file's content."""
    trt_logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(trt_logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # the only way since TensorRT 10
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, trt_logger)
    if not parser.parse(model.read_bytes()):
        raise ExportError(f"TensorRT {trt.__version__} can't read {model}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    for flag in BUILDER_FLAGS[export_info["precision"]]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if export_info["dynamic_batch"]:
        profile = builder.create_optimization_profile()
        shape = tuple(network.get_input(0).shape)[1:]
        profile.set_shape("images", *((batch, *shape) for batch in export_info["profile"]))
        config.add_optimization_profile(profile)
    if hasattr(trt, "IProgressMonitor"):  # since TensorRT 10
        config.progress_monitor = _progress_monitor(trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT {trt.__version__} could not build {model}: its messages above say why")
    return bytes(plan)


def _progress_monitor(trt):
    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[name-defined]  # trt is an argument
        """Prints one line for each phase of the builder."""

        def __init__(self):
            super().__init__()
            self._num_steps = {}

        def phase_start(self, name, parent, num_steps):
            self._num_steps[name] = num_steps

        def step_complete(self, name, step):
            print(f"\r{name}: {step + 1} of {self._num_steps[name]}\033[K", end="", file=sys.stderr)
            return True  # continue building

        def phase_finish(self, name):
            print(f"\r{name}: done\033[K", file=sys.stderr)

    return ProgressMonitor()


def _verify(trt, plan: bytes, model: Path, data: Path, contract: Contract, export_info: dict) -> None:
    """Compare the engine's probabilities with ONNX Runtime's. Raises ExportError if they differ too much."""
    samples = list_samples(data)
    images = [read_image(sample.path) for sample in samples[:: max(1, len(samples) // NUM_IMAGES)]]
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    dtype = trt.nptype(engine.get_tensor_dtype("images"))
    batches = make_batches(images, contract, dtype, export_info["batch_size"])
    rows = [_run(engine, batch, len(contract.labels)) for batch in batches]
    probabilities = np.concatenate(rows)[: len(images)]  # the last batch is filled up with copies
    parity = compare(probabilities, predict_probabilities(model, images, contract))
    parity.require(TOLERANCE["fp32"] if export_info["precision"] == "fp32" else ENGINE_TOLERANCE)
    print(
        f"same label as ONNX Runtime on {parity.same_label} of {parity.num_images} images, "
        f"largest difference of a probability {parity.largest_difference:.1e}"
    )


def _run(engine, batch: np.ndarray, num_classes: int) -> np.ndarray:
    """Return an engine's probabilities, float32 [N, num_classes], of a batch [N, H, W, 3].

    It calls CUDA's runtime library by ctypes: TensorRT installs it, so that no CUDA package for Python is needed.
    """
    cuda = ctypes.CDLL("libcudart.so")
    context = engine.create_execution_context()
    context.set_input_shape("images", batch.shape)
    sizes = {name: 4 * int(np.prod(context.get_tensor_shape(name))) for name in ("probabilities", "features")}
    pointers = {}
    try:
        for name, size in {"images": batch.nbytes, **sizes}.items():
            pointers[name] = ctypes.c_void_p()
            _check_cuda(cuda.cudaMalloc(ctypes.byref(pointers[name]), ctypes.c_size_t(size)))
            context.set_tensor_address(name, pointers[name].value)
        batch = np.ascontiguousarray(batch)
        num_bytes = ctypes.c_size_t(batch.nbytes)
        _check_cuda(cuda.cudaMemcpy(pointers["images"], batch.ctypes, num_bytes, HOST_TO_DEVICE))
        if not context.execute_async_v3(0):
            raise ExportError("the engine was built but does not run; no file was written")
        _check_cuda(cuda.cudaDeviceSynchronize())
        probabilities = np.empty((len(batch), num_classes), np.float32)
        num_bytes = ctypes.c_size_t(probabilities.nbytes)
        _check_cuda(cuda.cudaMemcpy(probabilities.ctypes, pointers["probabilities"], num_bytes, DEVICE_TO_HOST))
        return probabilities
    finally:
        for pointer in pointers.values():
            cuda.cudaFree(pointer)


def _check_cuda(code: int) -> None:
    if code:
        raise ExportError(f"CUDA error {code} while the engine was verified; no file was written")
