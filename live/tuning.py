"""Measure once which precision, execution provider and number of threads run a model fastest on this device.

    classifier = open_model(Path("model.onnx"), tune=True, data=Path("data"))
    classifier = open_model(Path("model.onnx"))      # as it was tuned before; by default if it never was

All is measured twice: on an idle device, and beside two busy programs. Several threads are faster on an idle device,
and often slower on a busy one, where each of them waits for a core. Where that is so, the classifier changes between
them while it runs. The result is kept in the folder `tuned` beside the model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Iterator, Tuple

import numpy as np
import onnxruntime

from teachcam import ending
from teachcam.cli import first_line
from teachcam.collect.dataset import list_samples
from teachcam.errors import ContractError, DatasetError, ModelError, UserError
from teachcam.files import parse_json, write_atomic
from teachcam.images import read_image
from teachcam.live.classifier import Classifier
from teachcam.live.onnx_model import OnnxModel, SessionConfig
from teachcam.live.timing import median_times
from teachcam.onnx_session import PROVIDERS
from teachcam.preprocessing import shrink
from teachcam.processor import processor_name, usable_cpus
from teachcam.runs import resolve_latest

FOLDER = "tuned"  # beside the model
NUM_RUNS = 40  # of each choice; the median of so many varies by a few percent
MAX_THREADS = 1024  # of a plausible result
NUM_BUSY = 2  # programs that compute beside the second measurement
OLD_NAMES = {"calm": "idle_ms", "busy": "loaded_ms"}  # in results that an older version kept

logger = logging.getLogger(__name__)
Choice = Tuple[str, str, int]  # precision, provider, and threads as in Timing


@dataclass(frozen=True)
class Timing:
    """One way to run a model, and the milliseconds that an image takes: the median."""

    precision: str  # that of the model's file, or another, made from it
    provider: str  # tensorrt, cuda or cpu
    threads: int  # of the CPU; 0 on a GPU
    idle_ms: float  # on an idle device
    loaded_ms: float  # beside busy programs

    @property
    def is_plausible(self) -> bool:
        """Whether all values are such as a measurement gives."""
        return (
            self.precision in ("fp32", "fp16", "int8")
            and self.provider in PROVIDERS
            and isinstance(self.threads, int)
            and 0 <= self.threads <= MAX_THREADS
            and all(isinstance(ms, (int, float)) and 0 < ms < float("inf") for ms in (self.idle_ms, self.loaded_ms))
        )

    def describe(self) -> str:
        """Return the choice as text."""
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.precision} on {self.provider}{threads}"


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning."""

    device: str  # that it holds for: processor, cores and ONNX Runtime
    timings: tuple[Timing, ...]

    @property
    def idle(self) -> Timing:
        """The fastest choice on an idle device."""
        return min(self._best_group, key=lambda timing: timing.idle_ms)

    @property
    def loaded(self) -> Timing:
        """The fastest choice on a busy device, of the same precision and provider."""
        return min(self._best_group, key=lambda timing: timing.loaded_ms)

    @property
    def best_threads(self) -> list[Timing]:
        """For each precision and provider, the fastest choice on an idle device."""
        return [min(group, key=lambda timing: timing.idle_ms) for group in self._groups]

    @property
    def _groups(self) -> list[list[Timing]]:
        """The choices of each precision and provider."""
        groups: dict[tuple[str, str], list[Timing]] = {}
        for timing in self.timings:
            groups.setdefault((timing.precision, timing.provider), []).append(timing)
        return list(groups.values())

    @property
    def _best_group(self) -> list[Timing]:
        """The choices of the precision and provider that is best in both measurements together."""
        idle_ms = min(timing.idle_ms for timing in self.timings)
        loaded_ms = min(timing.loaded_ms for timing in self.timings)

        def cost(group: list[Timing]) -> float:
            best = min(timing.idle_ms for timing in group), min(timing.loaded_ms for timing in group)
            return best[0] / idle_ms + best[1] / loaded_ms

        return min(self._groups, key=cost)


def open_model(path: Path, provider: str | None = None, tune: bool = False, data: Path | None = None) -> Classifier:
    """Open a model as it was tuned for this device, see `choose_config`."""
    return Classifier(*choose_config(resolve_latest(path), "probabilities", provider, tune, data))


def choose_config(
    path: Path, output: str, provider: str | None = None, tune: bool = False, data: Path | None = None
) -> SessionConfig:
    """Return how to run a model on this device: as it was tuned, else by default.

    Args:
        path: An ONNX file.
        output: The output to compute.
        provider: "tensorrt", "cuda" or "cpu". With it, tuning has no say.
        tune: Measure now, unless it was done before. It takes half a minute; with a GPU, minutes.
        data: A dataset with the model's labels. With its images int8 is tried, too, and on a GPU fp16.

    Raises:
        ModelError: The model can't be run.
    """
    if provider is not None:
        return SessionConfig(path, provider)
    tuning = read_tuning(path)
    if tuning is None and tune:
        tuning = measure(path, output, data)
    if tuning is None:
        return SessionConfig(path)
    idle, file = tuning.idle, tuned_file(path, tuning.idle.precision)
    return SessionConfig(file, idle.provider, idle.threads or None, tuning.loaded.threads or None)


def read_tuning(path: Path) -> Tuning | None:
    """Return what was measured with a model on this device, or None."""
    try:
        content = parse_json(_result_file(path).read_bytes())
        timings = [{OLD_NAMES.get(name, name): value for name, value in one.items()} for one in content["timings"]]
        tuning = Tuning(content["device"], tuple(Timing(**one) for one in timings))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not tuning.timings or not all(timing.is_plausible for timing in tuning.timings):  # the file is damaged
        return None
    is_there = tuned_file(path, tuning.idle.precision).is_file()
    return tuning if tuning.device == _device() and is_there else None


def measure(path: Path, output: str, data: Path | None = None) -> Tuning:
    """Time all choices, print them, and keep the result. See `choose_config` for the arguments."""
    logger.info(f"measuring what is fastest on this device for {path}")
    models = _load_all(path, _precision(path), output)
    if data is not None and _precision(path) == "fp32":
        on_gpu = any(provider != "cpu" for _, provider, _ in models)
        for precision in ("fp16", "int8") if on_gpu else ("int8",):  # a CPU computes fp16 in fp32
            if file := _convert(path, precision, data):
                models.update(_load_all(file, precision, output))
    if not models:
        raise ModelError(f"{path} can't be run here: teachcam doctor --model {path} says why")
    shape = next(iter(models.values())).ort_session.get_inputs()[0].shape[1:]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    runs = {choice: partial(model.run, image) for choice, model in models.items()}
    idle_ms = median_times(runs, NUM_RUNS)
    with _busy_programs():
        loaded_ms = median_times(runs, NUM_RUNS)
    tuning = Tuning(_device(), tuple(Timing(*choice, idle_ms[choice], loaded_ms[choice]) for choice in models))
    for timing in tuning.timings:
        logger.info(f"{timing.describe()}: {timing.idle_ms:.1f} ms, beside busy programs {timing.loaded_ms:.1f} ms")
    logger.info(f"chosen: {tuning.idle.describe()}; beside busy programs {tuning.loaded.describe()}")
    try:
        _result_file(path).parent.mkdir(exist_ok=True)
        write_atomic(_result_file(path), json.dumps(asdict(tuning), indent=1).encode())
    except OSError as error:
        logger.warning(f"can't keep the result in {_result_file(path)}: {error.strerror}")
    return tuning


@contextmanager
def _busy_programs() -> Iterator[None]:
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NUM_BUSY)]

    def end() -> None:
        for program in programs:
            program.kill()
            program.wait()
        ending.release(end)

    ending.hold(end)
    try:
        ending.sleep(0.5)  # until they have started
        yield
    finally:
        end()


def _load_all(file: Path, precision: str, output: str) -> dict[Choice, OnnxModel]:
    """Load a file on each provider that works, and on the CPU with each number of threads."""
    models = {}
    for provider in PROVIDERS:
        for threads in _thread_counts() if provider == "cpu" else [0]:
            with suppress(ModelError):
                config = SessionConfig(file, provider, threads or None)
                models[precision, provider, threads] = OnnxModel(config, output)
    return models


def _thread_counts() -> list[int]:
    """Return 1, 2, 4, ... and the number of cores."""
    cores = len(usable_cpus()) or os.cpu_count() or 1
    return sorted({cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})


def _convert(path: Path, precision: str, data: Path) -> Path | None:
    """Write the model in another precision, if its accuracy on the dataset stays. Returns None if it can't be made."""
    from teachcam.export.conversion import ExportConfig, convert  # imports what a tuned model does not need
    from teachcam.export.metadata import read_metadata
    from teachcam.export.verify import Validator, sample_evenly

    classifier = Classifier(path, "cpu")
    contract, out = classifier.contract, tuned_file(path, precision)
    target = read_metadata(path)[1].get("target", "desktop")
    try:
        samples = sample_evenly([sample for sample in list_samples(data) if sample.label in contract.labels])
        images = [(shrink(read_image(sample.path), contract.input_size), sample.label) for sample in samples]
        if not images:
            raise DatasetError(f"{data} has no image of the model's labels")

        def predict(images: list[np.ndarray]) -> np.ndarray:
            return np.array([list(classifier.classify(image).probabilities.values()) for image in images])

        validator = Validator(contract, predict, images[::2], images[1::2])
        out.parent.mkdir(exist_ok=True)
        validation = convert(path, out, validator, ExportConfig(target, precision), {})
    except (UserError, OSError) as error:
        logger.info(f"{precision} was not tried: {first_line(error)}")
        return None
    logger.info(f"{precision}: {validation.accuracies()}")
    return out


def _precision(path: Path) -> str:
    """Return the precision of a model's file, as its metadata states it."""
    from teachcam.export.metadata import read_metadata

    try:
        return read_metadata(path)[1].get("precision", "fp32")
    except ContractError:  # a backbone has no contract
        return "fp32"


def _result_file(path: Path) -> Path:
    return path.parent / FOLDER / f"{_content_hash(path)}.json"


def tuned_file(path: Path, precision: str) -> Path:
    """Return the file of a model in a precision: its own, or one that was made from it."""
    if precision == _precision(path):
        return path
    return path.parent / FOLDER / f"{_content_hash(path)}-{precision}.onnx"


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _device() -> str:
    """Return what a measurement holds for."""
    return f"{processor_name()}, {_thread_counts()[-1]} cores, ONNX Runtime {onnxruntime.__version__}"
