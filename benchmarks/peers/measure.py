"""Run a peer's job in a process of its own, and measure it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from catalog import Peer
from environments import FOLDER, PeerFailed, interpreter_of


def run_job(peer: Peer, build: Path, limit: float, device: str = "cpu", **job: object) -> dict:
    """Run a job, whose fields job.Job explains, and return its results. `first_label` is added for a loop, in seconds.

    Args:
        peer: Whose script runs.
        build: Where environments and weights are.
        limit: Seconds after which the job is ended.
        device: "cpu" or "cuda".
        job: The job's other fields, without `started`, `results`, `options` and `weights`.

    Raises:
        PeerFailed: It can't be installed, it fails, or it takes too long.
    """
    command, folder = interpreter_of(peer, build)
    weights, file, results = build / "weights", build / "job.json", build / "job_results.json"
    results.unlink(missing_ok=True)
    fields = {**job, "device": device, "options": peer.options, "weights": str(weights), "results": str(results)}
    output = build / "output.txt"
    with output.open("w") as errors:
        started = time.time()
        file.write_text(json.dumps({**fields, "started": started}))
        process = subprocess.Popen(
            [*command, str(FOLDER / peer.script), str(file)],
            cwd=folder or build,
            env=_environment(build, device),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), _end(process)))
        timer.start()
        first_label = None
        try:
            for line in process.stdout:
                if line.startswith("label ") and first_label is None:
                    first_label = time.time() - started
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            timer.cancel()
    if late.is_set():
        raise PeerFailed(f"it took longer than {limit:g} s")
    if code or not results.is_file():
        raise PeerFailed(_last_line(output.read_text(errors="replace")) or f"it ended with exit code {code}")
    answer = json.loads(results.read_text())
    return answer if first_label is None else {**answer, "first_label": first_label}


def _environment(build: Path, device: str) -> dict[str, str]:
    """Return a peer's environment variables: as many threads as cores, no GPU for cpu, and no download of weights."""
    cores = str(os.cpu_count())
    return {
        **os.environ,
        "OMP_NUM_THREADS": cores,
        "MKL_NUM_THREADS": cores,
        "OPENBLAS_NUM_THREADS": cores,
        "TORCH_HOME": str(build / "weights"),
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "YOLO_CONFIG_DIR": str(build / "ultralytics"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
    }


def _end(process: subprocess.Popen) -> None:
    """Kill a job with all processes that it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
