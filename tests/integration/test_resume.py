"""A run that is killed goes on where it was, and ends as if it had never been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, assert_one_line_error, call, call_here

from teachcam.errors import TrainingError
from teachcam.train import finetune
from teachcam.train.engine.progress import read_epochs
from teachcam.train.engine.resume import TrainingState
from teachcam.train.model.checkpoint import load_checkpoint

KILLS = int(os.environ.get("TEACHCAM_KILLS", "1"))
ASKED = ["--strategy", "partial", "--epochs", "6", "--size", "64", "--batch", "8"]


def weights_of(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoint.pt").network.state_dict()


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def start(*arguments: object, cwd) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train/finetune.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_it_ends_with_the_same_weights(dataset, tmp_path, monkeypatch):
    """TEACHCAM_KILLS=20 for the whole of it."""
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    whole = call("train/finetune.py", "--data", dataset, *ASKED, "--out", "runs/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    seconds = time.monotonic() - began
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        run = tmp_path / f"runs/killed{kills}"
        process = start("--data", dataset, *ASKED, "--out", run, cwd=tmp_path)
        while True:
            try:
                _, stderr = process.communicate(timeout=rng.uniform(0.2, 1.0) * seconds)
                assert process.returncode == 0, stderr
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
            begun = (run / ".state/options.json").exists()
            process = start(*(["--resume", run] if begun else ["--data", dataset, *ASKED, "--out", run]), cwd=tmp_path)
        assert_same(weights_of(run), weights_of(tmp_path / "runs/whole"))
        assert not (run / ".state").exists()


@pytest.mark.parametrize("more", [["--strategy", "auto", "--budget", "1000", "--epochs", "2"], ["--folds", "2"]])
def test_what_was_finished_is_not_done_again(more, dataset, tmp_path, monkeypatch):
    """Interrupted in the last of several trainings: only that one goes on, and the end is the same."""
    monkeypatch.chdir(tmp_path)
    asked = ["--data", str(dataset), *ASKED, *more]
    finetune.main([*asked, "--out", "runs/whole"])
    written = []
    write = TrainingState.write

    def interrupt(self, name, state, last=False):
        write(self, name, state, last=True)
        written.append(name)
        if name == "refit-partial":
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune.main([*asked, "--out", "runs/cut"])
    monkeypatch.setattr(TrainingState, "write", write)
    before = len(read_epochs(tmp_path / "runs/cut"))
    finetune.main(["--resume"])
    assert_same(weights_of(tmp_path / "runs/cut"), weights_of(tmp_path / "runs/whole"))
    text = (tmp_path / "runs/cut/epochs.jsonl").read_text().splitlines()
    again = [json.loads(line)["training"] for line in text[before:]]
    assert set(again) - {"head", "fold1-head"} <= {"refit-partial"}
    one, other = (json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("cut", "whole"))
    assert one["validation"] == other["validation"]


def test_ctrl_c_says_how_to_go_on(dataset, tmp_path):
    process = start("--data", dataset, *ASKED, "--epochs", "200", "--out", "runs/x", cwd=tmp_path)
    while not list(tmp_path.glob("runs/x/.state/partial.pt")):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: python train/finetune.py --resume runs/x goes on" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "runs/latest").exists()
    (next(iter(sorted((dataset / "palm").iterdir())))).touch()  # the same pictures, so the same dataset
    state = tmp_path / "runs/x/.state/partial.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert_one_line_error(
        call_here("train/finetune.py", "--resume", cwd=tmp_path), "partial.pt is damaged", "delete it"
    )


def test_what_can_not_be_resumed_says_why(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no run in runs/ was interrupted"):
        finetune.main(["--resume"])
    with pytest.raises(TrainingError, match="there is no run"):
        finetune.main(["--resume", "runs/none"])
    finetune.main(["--data", str(dataset), "--strategy", "head", "--epochs", "1", "--out", "runs/done"])
    with pytest.raises(TrainingError, match="it is finished"):
        finetune.main(["--resume", "runs/done"])
    with pytest.raises(SystemExit):
        finetune.main(["--resume", "runs/done", "--epochs", "3"])


def begin_and_interrupt(monkeypatch, *asked: str) -> None:
    write = TrainingState.write

    def interrupt(self, name, state, last=False):
        write(self, name, state, last=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune.main([*asked, *ASKED])


def test_what_was_validation_stays_validation(dataset, tmp_path, monkeypatch):
    """The same pictures under other names may be split another way: what was learned would be asked."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    begin_and_interrupt(monkeypatch, "--out", "runs/x")
    with pytest.raises(TrainingError, match="a run was interrupted there"):
        finetune.main(["--out", "runs/x"])
    first = min((tmp_path / "data/palm").iterdir())
    first.rename(first.with_name("another_0000.jpg"))
    with pytest.raises(TrainingError, match="the dataset has changed since"):
        finetune.main(["--resume"])
    first.with_name("another_0000.jpg").rename(first)
    finetune.main(["--resume"])


def test_a_frame_that_goes_while_it_trains_costs_nothing(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    write = TrainingState.write

    def lose(self, name, state, last=False):
        write(self, name, state, last)
        min((tmp_path / "data/palm").glob("*.jpg")).unlink()

    monkeypatch.setattr(TrainingState, "write", lose)
    assert finetune.main([*ASKED[:2], "--epochs", "1", *ASKED[4:], "--out", "runs/x"]) == 0
    assert (tmp_path / "runs/x/checkpoint.pt").exists()


def test_nothing_is_trained_into_a_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    with pytest.raises(TrainingError, match="that is the dataset"):
        finetune.main(["--out", "data"])
