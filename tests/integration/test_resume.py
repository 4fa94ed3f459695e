"""A run that was interrupted continues, and ends with the same weights as if it had not been."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT, SMALL, assert_one_line_error, call_here

from teachcam.errors import TrainingError
from teachcam.runs import read_epochs
from teachcam.train import finetune
from teachcam.train.engine.resume import TrainingState
from teachcam.train.model.checkpoint import load_checkpoint

KILLS = int(os.environ.get("TEACHCAM_KILLS", "1"))
OPTIONS = ["--strategy", "partial", "--epochs", "3", *SMALL, "--batch-size", "8"]


def load_weights(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoint.pt").network.state_dict()


def assert_same_weights(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def start(*arguments: object, cwd) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train/finetune.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train_here(folder: Path, arguments: list[str]) -> None:
    """Train, as the command does, in a process of FORKS."""
    os.chdir(folder)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    finetune.main(arguments)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(dataset, tmp_path):
    """Set TEACHCAM_KILLS=20 for a thorough test."""
    forks = multiprocessing.get_context("forkserver")  # has torch already, so that the kills fall into the training
    forks.set_forkserver_preload(["teachcam.train.finetune"])

    def start(*arguments: object):
        process = forks.Process(target=train_here, args=(tmp_path, [*map(str, arguments)]))
        process.start()
        return process

    first = ["--data", dataset, *OPTIONS, "--out"]
    whole = start(*first, tmp_path / "runs/whole")
    started = time.monotonic()
    whole.join(PATIENCE)
    assert whole.exitcode == 0
    seconds = time.monotonic() - started
    rng, kills = random.Random(0), 0
    while kills < KILLS:
        run = tmp_path / f"runs/killed{kills}"
        process = start(*first, run)
        while process.join(rng.uniform(0.2, 1.0) * seconds) or process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            has_begun = (run / ".state/config.json").exists()
            process = start(*(["--resume", run] if has_begun else [*first, run]))
        assert process.exitcode == 0
        seconds *= 0.8  # for the case that it ended before it was killed: the machine was busy when the time was taken
        assert_same_weights(load_weights(run), load_weights(tmp_path / "runs/whole"))
        assert not (run / ".state").exists()


@pytest.mark.slow
def test_finished_trainings_are_not_repeated(dataset, tmp_path, monkeypatch):
    """A run interrupted in the last of several trainings continues that one only, with the same result."""
    monkeypatch.chdir(tmp_path)
    options = ["--data", str(dataset), *OPTIONS, "--folds", "2"]
    finetune.main([*options, "--out", "runs/whole"])
    write = TrainingState.write

    def interrupt(self, name, state, last=False):
        write(self, name, state, last=True)
        if name == "refit-partial":
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune.main([*options, "--out", "runs/cut"])
    monkeypatch.setattr(TrainingState, "write", write)
    before = len(read_epochs(tmp_path / "runs/cut"))
    finetune.main(["--resume"])
    assert_same_weights(load_weights(tmp_path / "runs/cut"), load_weights(tmp_path / "runs/whole"))
    lines = (tmp_path / "runs/cut/epochs.jsonl").read_text().splitlines()
    repeated = {json.loads(line)["training"] for line in lines[before:]}
    assert "refit-partial" in repeated
    assert repeated <= {"refit-partial", "head", "fold1-head"}  # a head takes seconds, so its state is not saved
    one, other = (json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("cut", "whole"))
    assert one["validation"] == other["validation"]


@pytest.mark.slow
def test_ctrl_c_tells_how_to_continue(dataset, tmp_path):
    process = start("--data", dataset, *OPTIONS, "--epochs", "200", "--out", "runs/x", cwd=tmp_path)
    while not list(tmp_path.glob("runs/x/.state/partial.pt")):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; to continue: teachcam train --resume runs/x" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "runs/latest").exists()
    (next(iter(sorted((dataset / "palm").iterdir())))).touch()  # the same image, so the same dataset
    state = tmp_path / "runs/x/.state/partial.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert_one_line_error(
        call_here("train/finetune.py", "--resume", cwd=tmp_path), "partial.pt is damaged", "delete it"
    )


def test_a_run_that_can_not_be_resumed_is_an_error(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="no run in runs/ was interrupted"):
        finetune.main(["--resume"])
    with pytest.raises(TrainingError, match="there is no run"):
        finetune.main(["--resume", "runs/none"])
    finetune.main(["--data", str(dataset), "--strategy", "head", *SMALL, "--epochs", "1", "--out", "runs/done"])
    with pytest.raises(TrainingError, match="the run is finished"):
        finetune.main(["--resume", "runs/done"])
    with pytest.raises(SystemExit):
        finetune.main(["--resume", "runs/done", "--epochs", "3"])


def begin_and_interrupt(monkeypatch, *options: str) -> None:
    write = TrainingState.write

    def interrupt(self, name, state, last=False):
        write(self, name, state, last=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune.main([*options, *OPTIONS])


@pytest.mark.slow
def test_a_run_is_not_resumed_if_its_split_would_change(dataset, tmp_path, monkeypatch):
    """Renamed images may be split differently, so that training might have seen validation images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    begin_and_interrupt(monkeypatch, "--out", "runs/x")
    with pytest.raises(TrainingError, match="a run was interrupted there"):
        finetune.main(["--out", "runs/x"])
    first = min((tmp_path / "data/palm").iterdir())
    first.rename(first.with_name("another_0000.jpg"))
    with pytest.raises(TrainingError, match="the dataset has changed since the run began"):
        finetune.main(["--resume"])
    first.with_name("another_0000.jpg").rename(first)
    finetune.main(["--resume"])


@pytest.mark.slow
def test_a_run_of_an_earlier_version_begins_again_and_says_so(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begin_and_interrupt(monkeypatch, "--data", str(dataset), "--out", "runs/x")
    path = tmp_path / "runs/x/.state/config.json"
    saved = json.loads(path.read_text())
    del saved["format"]
    path.write_text(json.dumps({**saved, "split": "as it was hashed then"}))
    (tmp_path / "runs/x/.state/partial.pt").write_bytes(b"as it was saved then")
    finetune.main(["--resume"])
    assert "another version of teachcam began this run: it begins again" in capsys.readouterr().err
    assert (tmp_path / "runs/x/checkpoint.pt").exists()


@pytest.mark.slow
def test_an_image_deleted_during_training_does_no_harm(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    write = TrainingState.write

    def delete_an_image(self, name, state, last=False):
        write(self, name, state, last)
        min((tmp_path / "data/palm").glob("*.jpg")).unlink()

    monkeypatch.setattr(TrainingState, "write", delete_an_image)
    assert finetune.main([*OPTIONS, "--epochs", "1", "--out", "runs/x"]) == 0
    assert (tmp_path / "runs/x/checkpoint.pt").exists()


def test_a_run_is_not_written_into_the_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dataset, "data")
    with pytest.raises(TrainingError, match="is the dataset folder"):
        finetune.main(["--out", "data"])
