"""Build the TensorRT engine of an exported model, on the device that will run it, and prove it there.

    python export/engine.py model.onnx
    python export/engine.py model.onnx --data data

An engine is of one file, one TensorRT and one GPU: all three are in its name, so none is ever taken for another. It
is built by TensorRT's Python API, else by `trtexec`; live/run.py runs the ONNX file itself, by ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import hashlib
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
from teachcam.collect.dataset import read_items
from teachcam.contract import Contract
from teachcam.errors import ExportError
from teachcam.export.metadata import read_metadata
from teachcam.export.verify import TOLERANCE, compare
from teachcam.files import write_atomic
from teachcam.images import read_image
from teachcam.onnx_session import answer, batches

JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where JetPack puts it, outside of PATH
FRAMES = 50
DEVICE_TO_HOST, HOST_TO_DEVICE = 2, 1  # cudaMemcpyKind
ENGINE_TOLERANCE = 5e-2  # of any probability: an engine adds up in another order, and in float16


def main(argv: list[str] | None = None) -> int:
    """Build, or find what was built; print where it is."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a file of export/to_onnx.py")
    parser.add_argument("--data", type=Path, help="a dataset's folder: real frames to prove the engine on")
    parser.add_argument("--cache", type=Path, help="the engines' folder (beside the model)")
    options = parser.parse_args(argv)
    contract, record = read_metadata(options.model)
    if not record:
        raise ExportError(f"{options.model} does not say what it was exported for: export it again")
    trtexec = shutil.which("trtexec") or shutil.which(JETPACK_TRTEXEC)
    try:
        import tensorrt
    except ImportError:
        tensorrt = None
    version = tensorrt.__version__ if tensorrt else _trtexec_version(trtexec)
    if version is None:
        command = shlex.join(trtexec_command("trtexec", options.model, Path("model.engine"), record))
        raise ExportError(
            "no TensorRT here, neither Python's tensorrt nor trtexec: run this on the device (JetPack has both: "
            f"sudo apt install nvidia-jetpack), or there: {command}"
        )
    engine = engine_path(options.cache or options.model.parent, options.model, version, _gpu())
    if engine.is_file():
        print(f"{engine}: built before")
        return 0
    started = time.monotonic()
    print(f"building for {_gpu()} by TensorRT {version}: minutes, on a small board ten", file=sys.stderr)
    content = _by_tensorrt(tensorrt, options.model, record) if tensorrt else _by_trtexec(trtexec, options.model, record)
    if tensorrt and options.data:
        _prove(tensorrt, content, options.model, options.data, contract, record)
    engine.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(engine, content)
    print(f"{engine}: built in {time.monotonic() - started:.0f} s")
    if not (tensorrt and options.data):
        print("not proved: that needs Python's tensorrt, and real frames by --data DIR", file=sys.stderr)
    return 0


def engine_path(folder: Path, model: Path, version: str, gpu: str) -> Path:
    """Return the engine's file of a model (by its content), a TensorRT's version and a GPU."""
    content = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    gpu = re.sub(r"\W+", "-", gpu.lower()).strip("-")
    return folder / f"{model.stem}-{content}-trt{version}-{gpu}.engine"


def trtexec_command(trtexec: str, model: Path, engine: Path, record: dict) -> list[str]:
    """Return the command that builds an engine, with the precisions and the batches that the file was made for."""
    command = [trtexec, f"--onnx={model}", f"--saveEngine={engine}"]
    command += {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[record["precision"]]
    if record["open_batch"]:
        height, width = read_metadata(model)[0].input_size
        for name, batch in zip(("min", "opt", "max"), record["profile"]):
            command.append(f"--{name}Shapes=images:{batch}x{height}x{width}x3")
    return command


def _trtexec_version(trtexec: str | None) -> str | None:
    if trtexec is None:
        return None
    said = subprocess.run([trtexec, "--help"], capture_output=True, text=True).stdout
    found = re.search(r"TensorRT[. ]v(\d+)", said)  # 8502 is 8.5.2
    return found.group(1) if found else "unknown"


def _gpu() -> str:
    """Return the GPU's name: a Jetson's own from its device tree, others' from the driver."""
    tree = Path("/proc/device-tree/model")
    if tree.is_file():
        return tree.read_text().strip("\0 \n")
    try:
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = []
    return names[0] if names else "unknown"


def _by_trtexec(trtexec: str, model: Path, record: dict) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "model.engine"
        command = trtexec_command(trtexec, model, engine, record)
        done = subprocess.run(command, stdout=sys.stderr)  # its own progress
        if done.returncode or not engine.is_file():
            raise ExportError(f"trtexec failed with exit code {done.returncode}: {shlex.join(command)}")
        return engine.read_bytes()


def _by_tensorrt(trt, model: Path, record: dict) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # all there is since TensorRT 10
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        raise ExportError(f"TensorRT {trt.__version__} does not read {model}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    for flag in {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}[record["precision"]]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if record["open_batch"]:
        profile = builder.create_optimization_profile()
        shape = tuple(network.get_input(0).shape)[1:]
        profile.set_shape("images", *((batch, *shape) for batch in record["profile"]))
        config.add_optimization_profile(profile)
    if hasattr(trt, "IProgressMonitor"):  # since TensorRT 10
        config.progress_monitor = _progress(trt)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT {trt.__version__} could not build {model}: what it says above is why")
    return bytes(plan)


def _progress(trt):
    class Progress(trt.IProgressMonitor):
        """The builder's phases, a line each."""

        def __init__(self):
            super().__init__()
            self._steps = {}

        def phase_start(self, name, parent, steps):
            self._steps[name] = steps

        def step_complete(self, name, step):
            print(f"\r{name}: {step + 1} of {self._steps[name]}\033[K", end="", file=sys.stderr)
            return True  # go on

        def phase_finish(self, name):
            print(f"\r{name}: done\033[K", file=sys.stderr)

    return Progress()


def _prove(trt, plan: bytes, model: Path, data: Path, contract: Contract, record: dict) -> None:
    """Compare the engine's answers on real frames with ONNX Runtime's. Raises ExportError where they differ."""
    items = read_items(data)
    frames = [read_image(item.path) for item in items[:: max(1, len(items) // FRAMES)]]
    engine = trt.Context(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    dtype = trt.nptype(engine.get_tensor_dtype("images"))
    inputs = batches(frames, contract, dtype, record["batch"])
    answers = np.concatenate([_run(engine, part, len(contract.labels)) for part in inputs])[: len(frames)]
    parity = compare(answers, answer(model, frames, contract))
    parity.require(TOLERANCE["fp32"] if record["precision"] == "fp32" else ENGINE_TOLERANCE)
    print(
        f"the same label as ONNX Runtime on {parity.agreeing} of {parity.frames} real frames, "
        f"largest difference of a probability {parity.largest_difference:.1e}"
    )


def _run(engine, frames: np.ndarray, labels: int) -> np.ndarray:
    """Return the probabilities of a batch. CUDA's runtime comes with TensorRT: no more than that is needed."""
    cuda = ctypes.CDLL("libcudart.so")
    context = engine.create_execution_context()
    context.set_input_shape("images", frames.shape)
    sizes = {name: 4 * int(np.prod(context.get_tensor_shape(name))) for name in ("probabilities", "features")}
    pointers = {}
    try:
        for name, size in {"images": frames.nbytes, **sizes}.items():
            pointers[name] = ctypes.c_void_p()
            _check(cuda.cudaMalloc(ctypes.byref(pointers[name]), ctypes.c_size_t(size)))
            context.set_tensor_address(name, pointers[name].value)
        frames = np.ascontiguousarray(frames)
        _check(cuda.cudaMemcpy(pointers["images"], frames.ctypes, ctypes.c_size_t(frames.nbytes), HOST_TO_DEVICE))
        if not context.execute_async_v3(0):
            raise ExportError("the engine was built, and does not run")
        _check(cuda.cudaDeviceSynchronize())
        answers = np.empty((len(frames), labels), np.float32)
        _check(
            cuda.cudaMemcpy(answers.ctypes, pointers["probabilities"], ctypes.c_size_t(answers.nbytes), DEVICE_TO_HOST)
        )
        return answers
    finally:
        for pointer in pointers.values():
            cuda.cudaFree(pointer)


def _check(code: int) -> None:
    if code:
        raise ExportError(f"CUDA error {code} while the engine was proved")


if __name__ == "__main__":
    cli.run(main)
