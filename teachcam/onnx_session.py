"""Open ONNX files with ONNX Runtime, on the fastest execution provider that works on this machine.

ort_session, provider = open_session(Path("model.onnx"))
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Callable, Iterable, Iterator

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_inference_collection

from teachcam.cli import first_line
from teachcam.contract import Contract
from teachcam.errors import ModelError
from teachcam.files import parse_json
from teachcam.preprocessing import preprocess
from teachcam.processor import usable_cpus

# Our names of the execution providers, and ONNX Runtime's. The fastest is first; the first that runs a model is used.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
if hasattr(onnxruntime, "disable_telemetry_events"):  # for programs that import ONNX Runtime before teachcam
    onnxruntime.disable_telemetry_events()

DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}

# A CPU without VNNI adds int8 products in 16 bits, and clips sums that overflow. This session option prevents that.
_EXACT_INT8 = "session.x64quantprecision"
_AFFINITIES = "session.intra_op_thread_affinities"  # the CPUs of each worker thread
_BATCH_SIZE = 3  # for a file that leaves the batch size open: any small number over 1 exercises it


def open_session(
    path: Path, provider: str | None = None, threads: int | None = None
) -> tuple[onnxruntime.InferenceSession, str]:
    """Open an ONNX file, and run it once, so that the first image is not slower than the next.

    Args:
        path: The ONNX file.
        provider: "tensorrt", "cuda" or "cpu". None takes the first of them that runs the model.
        threads: Number of CPU threads. None is one for every physical core that this thread may use, see `tied_cores`.

    Returns:
        The ONNX Runtime session, and the name of its provider (a key of PROVIDERS).

    Raises:
        ModelError: The file is missing or broken, or the provider does not run it on this machine.
    """
    if not path.is_file():
        raise ModelError(f"no model at {path}: export one with teachcam export")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path} is not readable for this user: change its owner, or run chmod a+r on it")
    if provider is not None and provider not in PROVIDERS:
        raise ModelError(f"there is no provider {provider!r}: choose one of {', '.join(PROVIDERS)}")
    onnxruntime.set_default_logger_severity(4)  # a provider that does not load is no error: the next one is tried
    names = [provider] if provider else list(PROVIDERS)
    available = onnxruntime.get_available_providers()
    for name in (name for name in names if PROVIDERS[name] in available):
        ort_session = _open(path, name, threads)
        if ort_session is not None and name == "cpu" and _is_int8_for_tensorrt(ort_session):
            ort_session = _open(path, name, threads, exact_int8=True)
        if ort_session is not None:
            return ort_session, name
    raise ModelError(f"the provider {names[0]} does not work on this machine: choose another, or leave --provider out")


def open_exact_int8(path: Path | str) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU with int8 sums that are never clipped. It takes up to twice the time."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(_EXACT_INT8, "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_single_threaded(path: Path | str) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU, to run it in the calling thread alone, with that thread's priority."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only; others are raised
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def tied_cores(ort_session: onnxruntime.InferenceSession) -> set[int]:
    """Return the CPUs to which the worker threads of a session of `open_session` are tied.

    ONNX Runtime runs a model on the calling thread and on its workers. The caller should keep off their CPUs during a
    run: on one of them the two threads would take turns of 4 ms, while another core is idle.
    """
    try:
        affinities = ort_session.get_session_options().get_session_config_entry(_AFFINITIES)
    except RuntimeError:  # not set: there are no workers, or the system chooses their CPUs
        return set()
    return {int(cpu) - 1 for core in affinities.split(";") for cpu in core.split(",")}


def read_metadata_map(ort_session: onnxruntime.InferenceSession) -> dict[str, str]:
    """Return the metadata of the file that a session has opened. Raises ModelError if it is not text."""
    try:
        return ort_session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise ModelError("the model's metadata is damaged: export the model again") from None


def _is_int8_for_tensorrt(ort_session: onnxruntime.InferenceSession) -> bool:
    """Return whether a file has 8-bit weights, which TensorRT takes. Those for ONNX Runtime have 7 bits."""
    try:
        export_info = parse_json(read_metadata_map(ort_session).get("teachcam.export", "{}"))
    except ValueError:
        return False
    if not isinstance(export_info, dict) or export_info.get("precision") != "int8":
        return False
    # An older version wrote only the target, and had one for ONNX Runtime.
    return export_info.get("for_tensorrt", export_info.get("target") != "desktop")


def _session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only; others are raised
    # By default the workers spin between two runs. At 30 FPS that costs a whole core, taken from the camera's thread,
    # and saves 0.1 of 4 ms (SqueezeNet, two cores). Other thread counts, the arena and memory patterns did not matter.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if usable_cpus():  # Linux; elsewhere ONNX Runtime chooses the number of threads
        workers = _worker_cores()[: None if threads is None else threads - 1]
        options.intra_op_num_threads = 1 + len(workers)
        if workers:  # not tied to a core, a run takes 2.6 ms in place of 1.7 at 30 FPS (SqueezeNet, two cores)
            cpus = (",".join(str(cpu + 1) for cpu in sorted(core)) for core in workers)  # this option counts from 1
            options.add_session_config_entry(_AFFINITIES, ";".join(cpus))
    return options


def _worker_cores() -> list[set[int]]:
    """Return the CPUs of each worker thread: one for every physical core that this thread may use, but the first.

    A core has several CPUs if it runs several hardware threads.
    """
    allowed = usable_cpus()
    cores: list[set[int]] = []
    for cpu in sorted(allowed):
        if not any(cpu in core for core in cores):
            cores.append(_hardware_threads(cpu) & allowed | {cpu})
    return cores[1:]


def _hardware_threads(cpu: int) -> set[int]:
    """Return the CPUs that share a physical core with this one, as Linux lists them: `0,4` or `0-1`."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        cpus: set[int] = set()
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return {cpu}
    return cpus


def _open(path: Path, name: str, threads: int | None, exact_int8: bool = False) -> onnxruntime.InferenceSession | None:
    """Open a file on one provider. Returns None if that provider does not work on this machine."""
    options = _session_options(threads)
    if exact_int8:
        options.add_session_config_entry(_EXACT_INT8, "1")
    settings = {}
    if name == "tensorrt":  # building an engine takes minutes, so it is cached beside the model
        settings = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(path.parent / "engines")}
    try:
        # Older versions of ONNX Runtime do not know enable_fallback, and print that they fall back.
        with _without_prints():
            if name != "cpu" and hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()  # CUDA and cuDNN that pip installed; it prints which it did not find
            ort_session = onnxruntime.InferenceSession(
                str(path), options, providers=[(PROVIDERS[name], settings)], enable_fallback=0
            )
            # If a provider does not load, ONNX Runtime silently uses the CPU.
            if ort_session.get_providers()[0] != PROVIDERS[name]:
                return None
            _run_once(ort_session)  # missing GPU libraries or memory show only now
    except Exception as error:  # ONNX Runtime's errors share no base class
        if name != "cpu":
            return None
        if "till opset" in str(error):
            raise ModelError(
                f"{path} is for a newer ONNX Runtime than {onnxruntime.__version__}: "
                "update ONNX Runtime, or export the model again with --target jetpack4"
            ) from None
        raise ModelError(
            f"{path} is not a complete ONNX model, or can't be run: export it again ({first_line(error)})"
        ) from None
    return ort_session


@contextlib.contextmanager
def _without_prints() -> Iterator[None]:
    """Discard what ONNX Runtime's modules print meanwhile, since stdout is for results.

    `redirect_stdout` would take all prints, for example of a live loop while a newer model is loaded.
    """
    modules = (onnxruntime, onnxruntime_inference_collection)
    for module in modules:
        vars(module)["print"] = lambda *_, **__: None
    try:
        yield
    finally:
        for module in modules:
            vars(module).pop("print", None)  # another thread, which opens a file too, may have done it


def _run_once(ort_session: onnxruntime.InferenceSession) -> None:
    inputs = {}
    for array in ort_session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in array.shape]
        inputs[array.name] = np.zeros(shape, DTYPES.get(array.type, np.float32))
    ort_session.run(None, inputs)


def predict_probabilities(
    path: Path,
    images: list[np.ndarray],
    contract: Contract,
    track: Callable[[list[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> np.ndarray:
    """Return the probabilities that an ONNX file predicts on the CPU.

    int8 is computed exactly, as TensorRT computes it. So a file is not blamed for sums that a CPU without VNNI clips.

    Args:
        path: The ONNX file.
        images: uint8 [H, W, 3], BGR, of any size.
        contract: The file's contract.
        track: Yields the batches that it is called with, one by one, to see how far this is.

    Returns:
        float32 [num_images, num_classes].
    """
    ort_session = open_exact_int8(path)
    (graph_input,) = ort_session.get_inputs()
    batch_size = graph_input.shape[0] if isinstance(graph_input.shape[0], int) else _BATCH_SIZE
    dtype = np.uint8 if graph_input.type == "tensor(uint8)" else np.float32
    batches = make_batches(images, contract, dtype, batch_size)
    rows = [ort_session.run(["probabilities"], {graph_input.name: batch})[0] for batch in track(batches)]
    return np.concatenate(rows)[: len(images)]


def make_batches(images: list[np.ndarray], contract: Contract, dtype: type, batch_size: int) -> list[np.ndarray]:
    """Preprocess images into batches of a graph's input.

    Args:
        images: uint8 [H, W, 3], BGR, of any size.
        contract: States the input size and the color order.
        dtype: Type of the graph's input: np.uint8 or np.float32, with values from 0 to 255 in both.
        batch_size: Images in a batch. The last batch is filled up with copies of the first image.

    Returns:
        Arrays of shape [batch_size, height, width, 3].
    """
    inputs = [preprocess(image, contract) for image in images]
    inputs += inputs[:1] * (-len(inputs) % batch_size)
    return [np.stack(inputs[start : start + batch_size]).astype(dtype) for start in range(0, len(inputs), batch_size)]
