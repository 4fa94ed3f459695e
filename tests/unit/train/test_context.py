"""What a training runs with: memory limit, several processes, prefetching, and the log of the epochs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from conftest import PATIENCE, ROOT, SMALL, wait_until
from test_train import fit, make_data, train

from teachcam.errors import TrainingError
from teachcam.runs import read_epochs
from teachcam.train import finetune
from teachcam.train.engine import context as context_module
from teachcam.train.engine.context import Context
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.model.backbones import build_network

OPTIONS = ["--backbone", "resnet18", "--weights", "none", "--image-size", "64", "--strategy", "differential",
           "--epochs", "2", "--batch-size", "13", "--dropout", "0", "--optimizer", "sgd", "--lr", "1e-3",
           "--backbone-lr", "1e-4"]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "train/finetune.py")]


class SmallMemory:
    """A forward hook that runs out of memory with more than `limit` images, as a small GPU does."""

    def __init__(self, limit: int):
        self.limit, self.largest = limit, 0

    def __deepcopy__(self, _):  # copies of the network share the memory
        return self

    def __call__(self, _, inputs):
        if len(inputs[0]) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.largest = max(self.largest, len(inputs[0]))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["head", "partial"])
def test_out_of_memory_halves_the_chunks_with_the_same_result(strategy, dataset):
    lines, results = [], []
    for limit in (1000, 5):
        overrides = {"epochs": 1, "dropout": 0.0}
        if strategy == "partial":
            overrides["progressive_resize"] = (0.3,)
        data = make_data(dataset, strategy, overrides, refit=False)
        for layer in data.network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        memory = SmallMemory(limit)
        data.network.backbone.register_forward_pre_hook(memory)
        results.append(fit(data, context=Context(micro_batcher=MicroBatcher(lines.append))))
        whole_batch = 8 if strategy == "head" else 36  # with four outliers
        assert memory.largest == (whole_batch if limit == 1000 else 4)
    assert lines[-1] == "out of memory with 8 images at once: continuing with 4, with the same result"
    one, other = (result.history[-1]["validation_loss"] for result in results)
    assert one == pytest.approx(other, rel=0.05)  # in bfloat16


def test_too_little_memory_for_one_image_is_an_error(dataset):
    data = make_data(dataset, "head")
    data.network.backbone.register_forward_pre_hook(SmallMemory(0))
    with pytest.raises(TrainingError, match="out of memory with a single image"):
        fit(data)


def test_other_errors_do_not_count_as_out_of_memory():
    with pytest.raises(RuntimeError, match="shape"):
        MicroBatcher().run_in_chunks(4, lambda chunks: (_ for _ in ()).throw(RuntimeError("shape")))


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(dataset), *OPTIONS]
    command = [*TORCHRUN, *options, "--out", "runs/two"]
    two = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert two.returncode == 0, two.stderr
    finetune.main([*options, "--out", "runs/one"])
    assert two.stdout.count("accuracy") == 1
    one, other = (json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("one", "two"))
    assert (one["num_processes"], other["num_processes"]) == (1, 2)
    assert one.keys() == other.keys()
    assert one["validation"]["num_images"] == other["validation"]["num_images"]
    for a, b in zip(one["epochs"], other["epochs"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.03)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=0.03)


@pytest.mark.slow
def test_an_error_ends_all_processes(tmp_path):
    result = subprocess.run(TORCHRUN, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode != 0
    assert "error: no dataset at data" in result.stderr


@pytest.mark.slow
def test_pretrained_batch_norm_keeps_its_statistics_at_every_input_size(dataset):
    data = make_data(dataset, "partial", {"epochs": 1, "progressive_resize": (0.3,)}, weights="none")
    data.network, _ = build_network("resnet18", 3)
    trained = train(data)
    assert torch.equal(trained.network.backbone.bn1.running_mean, data.network.backbone.bn1.running_mean)


def test_prefetch_keeps_the_order_and_raises_errors():
    assert list(Context().prefetch(range(7), lambda number: -number)) == [0, -1, -2, -3, -4, -5, -6]
    with pytest.raises(ZeroDivisionError):
        list(Context().prefetch([1, 0, 2], lambda number: 1 / number))


@pytest.mark.parametrize(("use_takes_long", "seconds"), [(True, 1), (False, 5)])
def test_prefetch_makes_items_while_others_are_used_and_measures_the_wait(use_takes_long, seconds, monkeypatch):
    """Making an item takes a second. If using one takes as long, only the first of the five is waited for."""
    made, allowed, readings = [], threading.Semaphore(0), []

    def make(item: int) -> None:
        assert allowed.acquire(timeout=PATIENCE)
        made.append(item)

    def perf_counter() -> int:
        """Return the seconds so far. A wait begins at each second reading: then the item may be made."""
        readings.append(len(made))
        if len(readings) % 2 and (len(readings) == 1 or not use_takes_long):
            allowed.release()
        return readings[-1]

    monkeypatch.setattr(context_module, "time", SimpleNamespace(perf_counter=perf_counter))
    context = Context()
    for number, _ in enumerate(context.prefetch(range(5), make), 1):
        if use_takes_long and number < 5:
            allowed.release()
            wait_until(lambda number=number: len(made) == number + 1)
    assert context.data_wait_seconds == seconds


def test_epochs_are_logged_and_written_for_tensorboard(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finetune.main(
        ["--data", str(dataset), "--strategy", "head", *SMALL, "--epochs", "3", "--no-refit", "--out", "runs/x"]
    )
    epochs = read_epochs(tmp_path / "runs/x")
    logged = [(metrics["training"], metrics["epoch"], metrics["epochs"]) for metrics in epochs]
    assert logged == [("head", 1, 3), ("head", 2, 3), ("head", 3, 3)]
    with (tmp_path / "runs/x/epochs.jsonl").open("a") as file:
        file.write('{"training": "head", "ep')
    assert len(read_epochs(tmp_path / "runs/x")) == 3
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs/x"))
    events.Reload()
    losses = [event.value for event in events.Scalars("head/loss")]
    assert losses == pytest.approx([metrics["loss"] for metrics in epochs])
