"""What a training runs with: memory that runs out, several processes, and what is told meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from test_train import learner_on

from teachcam.errors import TrainingError
from teachcam.train import finetune
from teachcam.train.engine.context import Context
from teachcam.train.engine.micro_batch import MicroBatcher
from teachcam.train.engine.progress import read_epochs

ASKED = ("--backbone", "resnet18", "--weights", "none", "--size", "64", "--strategy", "differential", "--epochs", "2",
         "--batch", "13", "--dropout", "0", "--optimizer", "sgd", "--lr", "1e-3", "--backbone-lr", "1e-4")  # fmt: skip


class Small:
    """A board on which a network takes no more than a few frames at once."""

    def __init__(self, most: int):
        self.most, self.largest = most, 0

    def __deepcopy__(self, _):  # a copy of the network is on the same board
        return self

    def __call__(self, _, inputs):
        if len(inputs[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.largest = max(self.largest, len(inputs[0]))


@pytest.mark.parametrize("strategy", ["head", "partial"])
def test_out_of_memory_halves_the_batch_and_learns_the_same(strategy, dataset):
    said, outcomes = [], []
    for most in (1000, 5):
        context = Context(memory=MicroBatcher(said.append))
        learner = learner_on(dataset, context=context)
        for layer in learner.network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        small = Small(most)
        learner.network.backbone.register_forward_pre_hook(small)
        changes = {"epochs": 1, "dropout": 0.0} | ({"sizes": (0.3,)} if strategy == "partial" else {})
        outcomes.append(learner.learn(strategy, changes, refit=False))
        whole = 32 if strategy == "head" else 36  # with pictures of no label
        assert small.largest == (whole if most == 1000 else 4)
    assert said[-1] == "out of memory with 8 frames at once: going on with 4, which learns the same"
    one, other = (outcome.history[-1]["validation_loss"] for outcome in outcomes)
    assert one == pytest.approx(other, rel=0.05)  # in bfloat16


def test_not_even_one_frame_fits_is_one_line(dataset):
    learner = learner_on(dataset)
    learner.network.backbone.register_forward_pre_hook(Small(0))
    with pytest.raises(TrainingError, match="out of memory with one frame"):
        learner.learn("head")


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape"):
        MicroBatcher().within(4, lambda parts: (_ for _ in ()).throw(RuntimeError("shape")))


def test_two_processes_train_as_one_does(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--data", str(dataset), *ASKED]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, str(ROOT / "train/finetune.py"), *asked, "--out", "runs/two"]
    two = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert two.returncode == 0, two.stderr
    finetune.main([*asked, "--out", "runs/one"])
    assert two.stdout.count("accuracy") == 1
    one, other = (json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], other["processes"]) == (1, 2)
    assert one.keys() == other.keys()
    assert one["validation"]["frames"] == other["validation"]["frames"]
    for a, b in zip(one["epochs"], other["epochs"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.03)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=0.03)


def test_in_several_processes_a_users_mistake_ends_all_of_them(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, str(ROOT / "train/finetune.py")], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode != 0
    assert "error: no dataset at data" in result.stderr


def test_pretrained_batch_norm_keeps_its_statistics_at_every_size(dataset):
    from teachcam.train.model.backbones import build_network

    learner = learner_on(dataset)
    learner.network, _ = build_network("resnet18", 3)
    network, _ = learner.fit("partial", {"epochs": 1, "sizes": (0.3,)})
    assert torch.equal(network.backbone.bn1.running_mean, learner.network.backbone.bn1.running_mean)


def test_frames_are_made_ahead_and_come_in_order():
    context = Context()

    def slow(number: int) -> int:
        time.sleep(0.01 * (number % 2))
        return number

    assert list(context.ahead(range(7), slow)) == list(range(7))
    assert context.waited > 0
    with pytest.raises(ZeroDivisionError):
        list(context.ahead([1, 0, 2], lambda number: 1 / number))


def test_epochs_are_written_as_they_come_and_for_tensorboard(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--strategy", "head", "--epochs", "3", "--no-refit", "--out", "runs/x"])
    lines = read_epochs(tmp_path / "runs/x")
    assert [(line["training"], line["epoch"], line["epochs"]) for line in lines] == [("head", n, 3) for n in (1, 2, 3)]
    with (tmp_path / "runs/x/epochs.jsonl").open("a") as file:
        file.write('{"training": "head", "ep')
    assert len(read_epochs(tmp_path / "runs/x")) == 3
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs/x"))
    events.Reload()
    losses = [event.value for event in events.Scalars("head/loss")]
    assert losses == pytest.approx([line["loss"] for line in lines])
