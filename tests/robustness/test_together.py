"""Two programs with one dataset or one run, and clocks that go backwards."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unicodedata
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, PATIENCE, ROOT, SMALL, assert_one_line_error, call_here, record, wait_until

from teachcam.collect import dataset as dataset_module
from teachcam.collect.camera import Camera
from teachcam.collect.dataset import Session, list_samples, move_to_rejected
from teachcam.collect.synthetic import render
from teachcam.errors import DatasetError
from teachcam.images import encode_jpeg, read_image
from teachcam.live.model_watcher import find_model
from teachcam.teach.label_images import LabelImages
from teachcam.teach.session import Studio
from teachcam.teach.teacher import FEATURE_STORE, FOLDER, Teacher

IMAGE = render("palm", 0, 1, 64, 48)[0]


def start(cwd: Path, script: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_captures_into_one_dataset_lose_nothing(tmp_path, count, rounds):
    for number in range(rounds(1, 10)):
        count("faults")
        captures = [
            start(tmp_path, "collect/capture.py", "--label", "a", f"b{index}", "--camera",
                  "synthetic?fps=60&size=160x120", "--headless", "--fps", 0, "--max-frames", 30, "--delay", 0,
                  "--place", f"room {index}")
            for index in range(2)
        ]  # fmt: skip
        for capture in captures:
            _, messages = capture.communicate(timeout=PATIENCE)
            assert capture.returncode == 0, messages
        samples = list_samples(tmp_path / "data")
        assert len(samples) == 120 * (number + 1)
        assert {sample.scene for sample in samples} == {"room 0", "room 1"}
        for sample in samples:
            read_image(sample.path)


@pytest.mark.slow
def test_two_trainings_into_one_run_are_one_training_and_one_error(dataset, tmp_path, count):
    """The first one is stopped in the middle until the second one has ended."""
    count("faults")
    options = ["--data", dataset, *SMALL, "--strategy", "head", "--no-refit", "--out", "run"]
    first = start(tmp_path, "train/finetune.py", *options)
    wait_until(lambda: (tmp_path / "run/.state/config.json").exists() or first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    second = call_here("train/finetune.py", *options, cwd=tmp_path)
    first.send_signal(signal.SIGCONT)
    assert_one_line_error(second, "another process is training into it")
    _, messages = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, messages
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["labels"] == list(LABELS)


def act(studio: Studio, dice: random.Random, new: str) -> None:
    """Do one thing that a page can do."""
    labels = list(studio.labels.files) or ["none"]
    label = dice.choice(labels)
    name = dice.choice(studio.labels.files.get(label) or ["none"])
    actions = {
        studio.labels.add: (new,),
        studio.labels.rename: (label, new),
        studio.labels.remove: (label,),
        studio.labels.move: (label, [name], dice.choice([*labels, None])),
        studio.labels.restore: (label, [one["name"] for one in studio.labels.rejected()[:2]]),
        studio.labels.order: (label, dice.choice(labels)),
        studio.recording.begin: (label,),
        studio.recording.end: (),
        studio.labels.undo: (),
        studio.labels.redo: (),
        studio.labels.refresh: (),
        studio.labels.images: (label,),
    }
    action = dice.choice(list(actions))
    action(*actions[action])


@pytest.mark.slow
def test_two_studios_on_one_dataset(tmp_path, backbone, monkeypatch, count, rounds):
    """They add, rename and remove labels and images at the same time: both go on, and every image is somewhere."""
    rng, data = random.Random(0), tmp_path / "data"
    record(data, [0], LABELS, frames=6)
    cameras = [Camera(f"synthetic?seed={number}&fps=30&size=160x120") for number in range(2)]
    teachers = [Teacher(data, backbone) for _ in cameras]
    studios = [Studio(camera, data, teacher, tmp_path) for camera, teacher in zip(cameras, teachers, strict=True)]
    recorded, faults, save = [], [], Session.save

    def counting_save(session: Session, image: np.ndarray) -> Path:
        recorded.append(save(session, image))
        return recorded[-1]

    monkeypatch.setattr(Session, "save", counting_save)

    def work(studio: Studio, camera: Camera, seed: float) -> None:
        dice = random.Random(seed)
        for number in range(rounds(12, 150)):
            count("faults")
            try:
                act(studio, dice, f"{seed:.4f} {number}")
            except (DatasetError, OSError):  # what one has removed, the other can't use; the page says it
                pass
            except Exception as error:
                faults.append(error)
            camera.read_frame()
        studio.recording.end()

    threads = [
        threading.Thread(target=work, args=(studio, camera, rng.random()))
        for studio, camera in zip(studios, cameras, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for studio, teacher in zip(studios, teachers, strict=True):
        studio.labels.refresh()
        wait_until(lambda one=teacher: one.wait(1) and sum(one.progress.counts.values()) == len(in_dataset(data)))
        assert teacher.error is None
    assert teachers[0].progress.counts == teachers[1].progress.counts
    images = list(data.rglob("*.jpg"))
    assert len(images) == 18 + len(recorded)
    for path in images:
        read_image(path)
    for thing in (*studios, *teachers, *cameras):
        thing.close()
    with closing(sqlite3.connect(data / FOLDER / FEATURE_STORE)) as database:
        assert database.execute("SELECT COUNT(*) FROM features").fetchone()[0] >= len(in_dataset(data))


def in_dataset(data: Path) -> list[Path]:
    return [path for path in data.rglob("*.jpg") if ".rejected" not in path.parts]


# Clocks


def test_a_clock_that_goes_backwards_repeats_no_session_and_overwrites_nothing(tmp_path, monkeypatch, count):
    class Backwards(datetime):
        steps = 0

        @classmethod
        def now(cls, tz=None):
            cls.steps += 1
            return datetime.now(tz) - timedelta(days=365) * (cls.steps // 3)

    monkeypatch.setattr(dataset_module, "datetime", Backwards)
    for _ in range(9):
        count("faults")
        session = Session(tmp_path, "a")
        for _ in range(3):
            session.save(IMAGE)
    samples = list_samples(tmp_path)
    assert len(samples) == 27
    assert len({sample.session for sample in samples}) == 9


def test_files_of_the_future_are_the_newest_run(run_copy, tmp_path, monkeypatch, count):
    """A board without a battery starts in 1970: what it wrote before is in its future."""
    count("faults")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "latest").symlink_to("copy")
    future = time.time() + 1e9
    for name in ("checkpoint.pt", "model.onnx"):
        os.utime(run_copy / name, (future, future))
    assert find_model(None).resolve() == run_copy / "model.onnx"


# Rejected images


def test_a_rejected_image_never_replaces_another(tmp_path, count):
    """Names that cameras give are the same in many folders."""
    for number in range(3):
        count("inputs")
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "img_1.jpg").write_bytes(bytes([number]))
        newest = move_to_rejected(tmp_path, tmp_path / "a" / "img_1.jpg")
        assert newest == tmp_path / ".rejected" / "a" / "img_1.jpg"  # where `check.py --undo` looks for it
    contents = {path.read_bytes() for path in (tmp_path / ".rejected" / "a").iterdir()}
    assert contents == {b"\0", b"\1", b"\2"}
    assert newest.read_bytes() == b"\2"


@pytest.mark.parametrize("forms", [["NFD"], ["NFC"], ["NFC", "NFD"]])
def test_a_label_in_either_form_of_unicode_is_cared_for(tmp_path, count, forms):
    """As on Linux after copying a dataset from macOS, which splits an umlaut in two."""
    for form in forms:
        count("inputs")
        folder = tmp_path / unicodedata.normalize(form, "grün")
        folder.mkdir()
        for number in range(2):
            (folder / f"{form}_{number}.jpg").write_bytes(encode_jpeg(IMAGE))
    labels = LabelImages(tmp_path)
    names = [f"{form}_{number}.jpg" for form in forms for number in range(2)]
    assert labels.files == {"grün": sorted(names)}
    assert all(labels.path("grün", name).is_file() for name in names)
    labels.add("rot")
    labels.refresh()
    assert labels.move("grün", names[:1], "rot") == "moved 1 image to rot"
    labels.refresh()
    labels.move("rot", names[:1], "grün")
    labels.refresh()
    labels.rename("grün", "blau")
    labels.refresh()
    assert labels.files["blau"] == sorted(names)
    assert labels.remove("blau") == len(names)
    labels.refresh()
    assert "blau" not in labels.files
    assert len(list((tmp_path / ".rejected").rglob("*.jpg"))) == len(names)
    while labels.history.undo():
        labels.refresh()
    assert labels.files == {"grün": sorted(names)}
    assert all(labels.path("grün", name).is_file() for name in names)
