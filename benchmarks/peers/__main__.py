"""Measure teachcam beside what people use in its place, on the same images, and write benchmarks/RESULTS.md.

    python benchmarks/peers [--data synthetic DIR ...] [--peers NAME ...] [--folds 0 1 2] [--seeds 0]
                            [--device cuda] [--quick]

In a dataset every session is a room. Rooms are sorted by name, and fold k tests those whose index modulo 3 is k. Each
peer trains on the other rooms with its documented defaults, in an environment of its own below build/peers, where they
are installed. `synthetic` is drawn by the synthetic camera: 24 rooms, 4 labels, 5 images each.

The parts (all by default):

    train   accuracy in the rooms held out, what each says of itself, time, memory and size
    loop    time from a 480x640 image to its label, and from the start of the process to the first label
    way     the rest of a user's way with teachcam: recording, teaching, the live loop; by the other benchmarks
    report  benchmarks/RESULTS.md and the plots; from the results so far

Results are kept in benchmarks/peers/results.json, so a part that is run again replaces its own rows alone. On another
machine they begin anew. A peer that fails is a row that says why. With --quick, everything is small and goes to
build/peers/quick: it shows only that all works.

With --device cuda, the peers that can train on a GPU do. Their results are kept in results_cuda.json, and may come from
another machine. The parts `loop` and `way` are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import report
import torch
from catalog import OURS, PEERS, Peer
from environments import PeerFailed, version_of
from measure import run_job
from rooms import NUM_FOLDS, SYNTHETIC, Fold, make_folds, open_rooms, write_clip
from weights import write_weights

from teachcam.calibration import expected_calibration_error
from teachcam.errors import UserError
from teachcam.files import write_atomic
from teachcam.processor import processor_name
from teachcam.train.metrics import confidence_interval

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("train", "loop", "way", "report")
RESULTS = {"cpu": "results.json", "cuda": "results_cuda.json"}  # by device, in this folder
LABELS_FILE = "bench_labels.json"  # in the folder of a model
BY_NAME = {peer.name: peer for peer in PEERS}
NUM_IMAGES, NUM_WARM_UP = 100, 10  # of each process of a loop; the latter do not count
PAUSE = 1.0  # seconds between processes, in which the one before ends its threads


def main() -> int:
    """Run the parts that were asked for. Return 0, or 1 if a peer failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [peer.name for peer in PEERS]
    parser.add_argument("--data", nargs="+", default=[SYNTHETIC], help="datasets (default: synthetic)")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--folds", type=int, nargs="+", choices=range(NUM_FOLDS), default=list(range(NUM_FOLDS)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=7, help="processes of each loop (default: %(default)s)")
    parser.add_argument("--device", choices=RESULTS, default="cpu", help="what to train on (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for one training (default: %(default)g)")
    parser.add_argument("--quick", action="store_true", help="show only that everything works")
    options = parser.parse_args()
    if options.device == "cuda":
        options.parts = [part for part in options.parts if part in ("train", "report")]
    if options.quick:
        options.folds, options.seeds, options.rounds = options.folds[:1], options.seeds[:1], 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a peer that runs is ended, too
    bench = Bench(options)
    started = time.monotonic()
    try:
        for part in [part for part in PARTS if part in options.parts]:
            getattr(bench, part)()
    except UserError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was measured so far is kept", file=sys.stderr)
        return 130
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    return 1 if bench.failed else 0


class Bench:
    """The results so far, in a file, and what adds to them."""

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._peers = [peer for peer in PEERS if peer.name in options.peers]
        if options.device == "cuda":
            self._peers = [peer for peer in self._peers if peer.trains_on_gpu]
        self._shared = ROOT / "build/peers"  # environments and weights
        self._build = self._shared / "quick" if options.quick else self._shared
        self._build.mkdir(parents=True, exist_ok=True)
        self._folder = self._build if options.quick else Path(__file__).parent  # of the results
        self._file = self._folder / RESULTS[options.device]
        self._results = json.loads(self._file.read_text()) if self._file.is_file() else {}
        self.failed = False

    def train(self) -> None:
        """Train every peer in every fold, with every seed. The peers take turns."""
        self._prepare()
        for data in self._options.data:
            samples = open_rooms(data, self._build, self._options.quick)
            with tempfile.TemporaryDirectory() as folder:
                folds = make_folds(samples, Path(folder), self._options.folds)
                for seed in self._options.seeds:
                    for fold in folds:
                        for peer in self._peers:
                            if peer.trains:
                                self._train(peer, Path(data).name, fold, seed)

    def _train(self, peer: Peer, data: str, fold: Fold, seed: int) -> None:
        key = {"peer": peer.name, "data": data, "fold": fold.number, "seed": seed}
        row = {**key, "num_train": fold.num_train, "num_test": len(fold.test), "num_labels": len(fold.labels)}
        model = self._model_of(peer)
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        (model / LABELS_FILE).write_text(json.dumps(fold.labels))
        job = {"mode": "train", "device": self._options.device, "seed": seed, "quick": self._options.quick}
        job |= {"model": str(model), "train": str(fold.train), "labels": fold.labels}
        job["test"] = [str(sample.path.resolve()) for sample in fold.test]
        try:
            answer = run_job(peer, self._shared, self._options.limit, **job)
            if answer.get("claim") is None:
                raise PeerFailed("it could not measure its own accuracy")
            row |= {**_score(answer.pop("probabilities"), fold), **answer, "version": version_of(peer, self._shared)}
        except PeerFailed as error:
            row["failed"], self.failed = _without_folders(str(error)), True
        print(f"{data}, fold {fold.number}, seed {seed}, {peer.name}: {report.describe(row)}", flush=True)
        self._keep("trainings", key, row)

    def loop(self) -> None:
        """Time every peer's loop, in several processes each. The peers take turns."""
        self._prepare()
        clip, image = write_clip(self._build)
        rounds: dict[str, list[dict]] = {peer.name: [] for peer in self._peers}
        failed: dict[str, str] = {}
        for number in range(self._options.rounds + 1):
            for peer in self._peers:
                if peer.name in failed:
                    continue
                time.sleep(PAUSE)
                try:
                    model = self._model_of(peer if peer.trains else BY_NAME[OURS])
                    if not (model / LABELS_FILE).is_file():
                        raise PeerFailed("there is no model: run the part `train` first")
                    labels = json.loads((model / LABELS_FILE).read_text())
                    job = {"mode": "loop", "model": str(model), "labels": labels, "clip": str(clip)}
                    job |= {"num_images": NUM_IMAGES, "num_warm_up": NUM_WARM_UP}
                    answer = run_job(peer, self._shared, self._options.limit, image=str(image), **job)
                    if number > 0:  # the first start fills the disk cache
                        rounds[peer.name].append(answer)
                except PeerFailed as error:
                    failed[peer.name], self.failed = _without_folders(str(error)), True
        for name, answers in rounds.items():
            row = {"peer": name, "version": version_of(BY_NAME[name], self._shared)}
            if name in failed:
                row["failed"] = failed[name]
            else:
                row |= _summarize([value for answer in answers for value in answer["latencies"]])
                row["rounds"] = [_summarize(answer["latencies"]) for answer in answers]
                row["first_label"] = [answer["first_label"] for answer in answers]
                row["memory_mb"] = answers[-1]["memory_mb"]
            print(f"loop, {name}: {report.describe_loop(row)}", flush=True)
            self._keep("loops", {"peer": name}, row)

    def way(self) -> None:
        """Run the benchmarks of what else a user does with teachcam, and keep what they print."""
        self._prepare()
        clip, _ = write_clip(self._build)
        model = self._model_of(BY_NAME[OURS]) / "model.onnx"
        seconds = "5" if self._options.quick else "60"
        commands = {
            "Recording": ["capture_rate.py", seconds],
            "Teaching: from the first frames to the first right answer": ["teach.py", "speed"],
            "The live loop": ["live_loop.py"],
            "The start of the live loop's command": ["live_start.py", str(model), str(clip)],
            "Age of a frame, and slow outputs": ["live_sinks.py", "no_sink", "page"],
        }
        if self._options.quick:
            commands = {"Recording": commands["Recording"]}
        for title, (script, *arguments) in commands.items():
            command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
            try:
                text = _output_of(command, self._options.limit)
            except PeerFailed as error:
                text, self.failed = f"failed: {error}", True
            print(f"{title}:\n{text}", flush=True)
            arguments = [Path(argument).name for argument in arguments]
            command_line = " ".join(["python", f"benchmarks/{script}", *arguments])
            self._results["way"][title] = {"command": command_line, "output": text}
            self._write()

    def report(self) -> None:
        """Write the page, the documentation's tables, and the plots."""
        files = [self._folder / name for name in RESULTS.values()]
        measured = [json.loads(file.read_text()) for file in files if file.is_file()]
        measured = [results for results in measured if results["trainings"]]
        if not measured:
            raise UserError("nothing was measured yet: run the part `train` first")
        page, images = ROOT / "benchmarks/RESULTS.md", ROOT / "docs/images"
        if self._options.quick:
            page, images = self._build / "RESULTS.md", self._build / "images"
        report.write(measured, page, images)

    def _prepare(self) -> None:
        """Write the weights, and what the results are measured with. Forget those of another machine."""
        write_weights(self._shared / "weights")
        machine = {"processor": processor_name(), "cores": os.cpu_count()}
        if self._options.device == "cuda":
            if not torch.cuda.is_available():
                raise UserError("--device cuda: PyTorch finds no GPU here")
            machine["gpu"] = torch.cuda.get_device_name()
        if self._results.get("machine") != machine:
            self._results = {"machine": machine, "trainings": [], "loops": [], "way": {}}
        self._results["software"] = {
            "system": f"{platform.system()} {platform.release()}",
            "versions": {
                "Python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "numpy")},
                "opencv": cv2.__version__,
                "onnxruntime": onnxruntime.__version__,
            },
        }

    def _model_of(self, peer: Peer) -> Path:
        return self._build / ("models" if self._options.device == "cpu" else "models_cuda") / peer.name

    def _keep(self, kind: str, key: dict, row: dict) -> None:
        """Add a row, in place of the one with the same key, and write the file."""
        rows = [row for row in self._results[kind] if any(row[name] != value for name, value in key.items())]
        self._results[kind] = [*rows, {**row, "date": time.strftime("%Y-%m-%d")}]
        self._write()

    def _write(self) -> None:
        write_atomic(self._file, json.dumps(self._results, indent=1).encode())


def _score(probabilities: list[list[float]], fold: Fold) -> dict[str, float]:
    """Return the accuracy in the rooms held out, its 95 % interval, and the calibration error."""
    table = np.array(probabilities)
    if table.shape != (len(fold.test), len(fold.labels)) or not np.isfinite(table).all():
        raise PeerFailed(f"it gave probabilities of the shape {table.shape}")
    correct = np.array([fold.labels[index] for index in table.argmax(1)]) == [sample.label for sample in fold.test]
    return {
        "accuracy": float(correct.mean()),
        "accuracy_interval": confidence_interval(correct, [sample.session for sample in fold.test]),
        "ece": float(expected_calibration_error(table.max(1), correct)),
    }


def _output_of(command: list[str], limit: float) -> str:
    """Run a benchmark and return what it prints to stdout."""
    try:
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"it took longer than {limit:g} s") from None
    if done.returncode:
        raise PeerFailed((done.stderr.strip().splitlines() or ["no output"])[-1])
    return _without_folders(done.stdout.strip())


def _without_folders(text: str) -> str:
    """Return a text without the names of this machine's folders."""
    text = re.sub(re.escape(tempfile.gettempdir() + os.sep) + r"[^/\\]+[/\\]", "", text)
    return text.replace(str(ROOT) + os.sep, "")


def _summarize(latencies: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    return {"num_images": len(latencies), "p50": float(p50), "p99": float(p99)}


if __name__ == "__main__":
    sys.exit(main())
