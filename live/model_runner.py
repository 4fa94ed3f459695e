"""Run a model on one image after another, without allocating memory, on cores that are free."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import onnxruntime

from teachcam.onnx_session import tied_cores


class ModelRunner:
    """Runs a session of ONNX Runtime on single images. One thread may use it; each further thread needs its own."""

    def __init__(self, ort_session: onnxruntime.InferenceSession, provider: str, output: str):
        """Allocate the input and the output once, so that no frame allocates memory.

        Args:
            ort_session: Takes `images`, uint8 or float32 [1, height, width, 3].
            provider: That runs it: tensorrt, cuda or cpu.
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
        cores = os.sched_getaffinity(0) if self._pinned_cores else set()  # no core is pinned where this is missing
        free_cores = cores - self._pinned_cores
        _move_to_cores(free_cores)
        try:
            self._ort_session.run_with_iobinding(self._binding)
        finally:
            if free_cores:
                _move_to_cores(cores)  # threads and programs that this thread starts inherit its cores


def _move_to_cores(cores: set[int]) -> None:
    """Let the calling thread run on these cores only, if there are any and the system allows it."""
    if cores:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
