"""Load a model, and run it on one image after another, without allocating memory, on cores that are free."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import Callable, NamedTuple, TypeVar

import numpy as np
import onnxruntime

from teachcam.cli import first_line
from teachcam.errors import ModelError
from teachcam.onnx_session import open_session, tied_cores
from teachcam.processor import usable_cpus

NUM_RECENT, NUM_TRIALS = 15, 3  # runs: half a second at 30 FPS, and a tenth
RUNS_BETWEEN_TRIALS = 400  # so that less than 1 % of the frames pay for a trial
SLOWER = 1.3  # times slower than usual: then the other one is tried at once

Runner = Callable[[np.ndarray], np.ndarray]
T = TypeVar("T", bound="OnnxModel")


class SessionConfig(NamedTuple):
    """A model file, and the provider and number of threads to run it with."""

    path: Path  # an ONNX file
    provider: str | None = None  # tensorrt, cuda or cpu; None is the first of them that works
    threads: int | None = None  # of the CPU; None is one for every core
    busy_threads: int | None = None  # of the CPU, while other programs make `threads` slower; None is the same


class OnnxModel:
    """An ONNX file, loaded and ready to run on this device. One thread may use it; others need a `clone_for_thread`.

    Attributes:
        path: The ONNX file.
        ort_session: ONNX Runtime's session.
        provider: The execution provider that runs it: tensorrt, cuda or cpu.
    """

    def __init__(self, config: SessionConfig, output: str):
        """Load the file, and run it once. Raises ModelError if it can't be run.

        Args:
            config: The file, and how to run it.
            output: The output that `run` computes, float32 [1, D].
        """
        self.path, self._output = config.path, output
        self.ort_session, self.provider = open_session(config.path, config.provider, config.threads)
        self._busy_session = None
        if self.provider == "cpu" and config.busy_threads not in (None, config.threads):
            self._busy_session, _ = open_session(config.path, "cpu", config.busy_threads)
        self._runner: Runner | None = None  # of the thread that uses this, made for its first image

    def clone_for_thread(self: T) -> T:
        """Return a model for another thread. It shares what was loaded, and has its own buffers."""
        clone = copy.copy(self)
        clone._runner = None
        return clone

    def run(self, model_input: np.ndarray) -> np.ndarray:
        """Run the model on one preprocessed image.

        Args:
            model_input: uint8 [height, width, 3], as `preprocess` returns it.

        Returns:
            The output, float32 [D]. The next call overwrites it.

        Raises:
            ModelError: The model failed, for example because the GPU is out of memory.
        """
        try:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner(model_input)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"{self.path} failed on {self.provider}: {first_line(error)}") from None

    def _make_runner(self) -> Runner:
        runner = ModelRunner(self.ort_session, self.provider, self._output)
        if self._busy_session is None:
            return runner
        return AdaptiveRunner(runner, ModelRunner(self._busy_session, self.provider, self._output))


class ModelRunner:
    """Runs a session of ONNX Runtime on single images. One thread may use it; each further thread needs its own."""

    def __init__(self, ort_session: onnxruntime.InferenceSession, provider: str, output: str):
        """Allocate the input and the output once, so that no frame allocates memory.

        Args:
            ort_session: Takes `images`, uint8 or float32 [1, height, width, 3].
            provider: Execution provider that runs it: tensorrt, cuda or cpu.
            output: The output to compute, float32 [1, D].
        """
        self._ort_session, self._on_cpu = ort_session, provider == "cpu"
        self._pinned_cores = tied_cores(ort_session)
        graph_input = ort_session.get_inputs()[0]
        (num_values,) = next(value.shape[1:] for value in ort_session.get_outputs() if value.name == output)
        dtype = np.uint8 if graph_input.type == "tensor(uint8)" else np.float32  # older TensorRT takes no uint8
        self._model_input = np.zeros((1, *graph_input.shape[1:]), dtype)
        self._output = np.zeros((1, num_values), np.float32)
        # On the CPU this shares memory with the array.
        device = "cpu" if self._on_cpu else "cuda"
        self._input_value = onnxruntime.OrtValue.ortvalue_from_numpy(self._model_input, device, 0)
        self._binding = ort_session.io_binding()
        self._binding.bind_ortvalue_input("images", self._input_value)
        self._binding.bind_ortvalue_output(output, onnxruntime.OrtValue.ortvalue_from_numpy(self._output))

    def __call__(self, model_input: np.ndarray) -> np.ndarray:
        """Run the model on one image.

        Args:
            model_input: uint8 [height, width, 3], as `preprocess` returns it.

        Returns:
            float32 [D]. The next call overwrites it.
        """
        self._model_input[0] = model_input
        if not self._on_cpu:
            self._input_value.update_inplace(self._model_input)
        self._run_on_free_core()
        return self._output[0]

    def _run_on_free_core(self) -> None:
        """Run the model with this thread on a core to which ONNX Runtime tied none of its threads.

        On one of theirs the two threads would take turns of 4 ms, while another core is idle.
        """
        cores = usable_cpus() if self._pinned_cores else set()
        free_cores = cores - self._pinned_cores
        _move_to_cores(free_cores)
        try:
            self._ort_session.run_with_iobinding(self._binding)
        finally:
            if free_cores:
                _move_to_cores(cores)  # threads and programs that this thread starts inherit its cores


class AdaptiveRunner:
    """Runs a model by the one of two runners that is faster at the time. They differ in their number of threads.

    The other one is tried for a few runs from time to time, and at once when the first becomes slower. Beside two busy
    programs, two threads once took 16 ms where one took 8.5 (two AVX2 cores); on a Xeon with AVX-512, 22.0 and 24.1.
    """

    def __init__(self, first: Runner, second: Runner):
        """Begin with the first."""
        self._runner, self._other = first, second
        self._usual = float("inf")  # seconds of a run, when the two were compared
        self._times: deque[float] = deque(maxlen=NUM_RECENT)  # seconds of the newest runs
        self._trials: list[float] = []  # seconds of the other one's runs
        self._runs_left = NUM_RECENT  # until the other one is tried

    def __call__(self, model_input: np.ndarray) -> np.ndarray:
        """Run the model on one image, see ModelRunner."""
        if self._runs_left > 0 and not self._is_slower():
            self._runs_left -= 1
            output, seconds = _timed(self._runner, model_input)
            self._times.append(seconds)
            return output
        output, seconds = _timed(self._other, model_input)
        self._trials.append(seconds)
        if len(self._trials) == NUM_TRIALS:
            self._choose()
        return output

    def _is_slower(self) -> bool:
        return len(self._times) == NUM_RECENT and median(self._times) > SLOWER * self._usual

    def _choose(self) -> None:
        seconds, usual = median(self._trials), median(self._times)
        if seconds < usual:
            self._runner, self._other = self._other, self._runner
        self._usual, self._runs_left = min(seconds, usual), RUNS_BETWEEN_TRIALS
        self._times.clear()
        self._trials.clear()


def _timed(runner: Runner, model_input: np.ndarray) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    output = runner(model_input)
    return output, time.perf_counter() - started


def _move_to_cores(cores: set[int]) -> None:
    """Let the calling thread run on these cores only, if there are any and the system allows it."""
    if cores and sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
