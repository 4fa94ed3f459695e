"""The recorder: rates, sessions, undo, and slow or full disks."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, wait_until

from teachcam.collect import dataset
from teachcam.collect.camera import Camera, Frame
from teachcam.collect.recorder import QUEUE_SIZE, Recorder
from teachcam.collect.synthetic import read_number
from teachcam.images import read_image

IMAGE = np.zeros((8, 8, 3), np.uint8)


def fake_camera(live: bool = True) -> SimpleNamespace:
    """Return what the recorder needs of a camera. The test passes the frames."""
    return SimpleNamespace(metadata={"camera": "test"}, live=live, on_each_frame=lambda function: None)


def frame_at(seconds: float, image: np.ndarray = IMAGE) -> Frame:
    return Frame(image, round(30 * seconds), seconds, seconds)


def saved_in(data) -> list[dataset.Sample]:
    try:
        return dataset.list_samples(data)
    except dataset.DatasetError:
        return []


@pytest.mark.parametrize("fps", [5, 29, 30])
def test_a_camera_with_jitter_is_recorded_at_the_requested_rate(tmp_path, fps):
    rng = np.random.default_rng(0)
    with Recorder(fake_camera(live=False), tmp_path, "x", fps) as recorder:
        recorder.start()
        taken = sum(recorder.add_frame(frame_at(number / 30 + rng.uniform(-0.006, 0.006))) for number in range(90))
    assert abs(taken - 3 * fps) <= 1
    assert recorder.saved["x"] == taken == len(saved_in(tmp_path))


def test_every_frame_of_a_live_camera_is_recorded_once(tmp_path):
    with (
        Camera("synthetic:palm?seed=1&numbered=1&size=320x240") as camera,
        Recorder(camera, tmp_path, "x", 0) as recorder,
    ):
        recorder.start(max_images=40)
        wait_until(lambda: recorder.done)  # meanwhile nothing reads the camera
    numbers = [read_number(read_image(sample.path)) for sample in saved_in(tmp_path)]
    assert numbers == list(range(numbers[0], numbers[0] + 40))
    assert recorder.dropped == 0


def test_each_start_is_a_session_and_all_shots_of_a_label_are_one(tmp_path):
    with Recorder(fake_camera(), tmp_path, "a", 0, note="kitchen, evening") as recorder:
        for _ in range(2):
            recorder.start()
            recorder.add_frame(frame_at(0.0))
        recorder.stop()
        for _ in range(3):
            recorder.snapshot(frame_at(1.0))
        recorder.set_label("b")
        recorder.snapshot(frame_at(2.0))
    sessions = {(sample.label, sample.session) for sample in saved_in(tmp_path)}
    assert sorted(label for label, _ in sessions) == ["a", "a", "a", "b"]
    assert recorder.sessions == {"a": 3, "b": 1}
    lines = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert {(line["label"], line["session"]) for line in lines} == sessions
    assert {line["note"] for line in lines} == {"kitchen, evening"}


def test_nothing_is_recorded_unless_a_session_is_open(tmp_path):
    with Recorder(fake_camera(), tmp_path, "a", 0) as recorder:
        assert not recorder.add_frame(frame_at(0.0))
        recorder.start(max_images=2)
        assert [recorder.add_frame(frame_at(number / 30)) for number in range(4)] == [True, True, False, False]
        assert recorder.done
        recorder.stop()
        assert not recorder.add_frame(frame_at(1.0))
    assert len(saved_in(tmp_path)) == 2


def test_undo_moves_the_last_recording_and_deletes_nothing(tmp_path):
    with Recorder(fake_camera(), tmp_path, "a", 0) as recorder:
        recorder.start()
        recorder.add_frame(frame_at(0.0))
        recorder.stop()
        recorder.start()
        for number in range(3):
            recorder.add_frame(frame_at(1 + number))
        recorder.stop()
        recorder.snapshot(frame_at(9.0))
        assert [recorder.undo() for _ in range(4)] == [1, 3, 1, 0]
        assert recorder.saved["a"] == recorder.sessions["a"] == 0
    assert saved_in(tmp_path) == []
    assert len(list((tmp_path / ".rejected/a").iterdir())) == 5


def test_frames_that_do_not_fit_in_the_queue_are_counted(tmp_path, monkeypatch):
    gate = threading.Event()
    write = dataset.write_atomic
    monkeypatch.setattr(dataset, "write_atomic", lambda *arguments: (gate.wait(), write(*arguments)))
    with Recorder(fake_camera(), tmp_path, "a", 0) as recorder:
        recorder.start()
        taken = sum(recorder.add_frame(frame_at(number / 30)) for number in range(QUEUE_SIZE + 20))
        gate.set()
    assert recorder.dropped == QUEUE_SIZE + 20 - taken
    assert 19 <= recorder.dropped <= 20  # the writer may have taken one from the queue
    assert len(saved_in(tmp_path)) == taken


def test_a_file_waits_for_the_disk(tmp_path, monkeypatch):
    write = dataset.write_atomic
    queue_is_full = threading.Event()

    def write_when_full(*arguments) -> None:
        if not queue_is_full.is_set():
            wait_until(lambda: recorder._queue.full())
            queue_is_full.set()
        write(*arguments)

    with Recorder(fake_camera(live=False), tmp_path, "a", 0) as recorder:
        monkeypatch.setattr(dataset, "write_atomic", write_when_full)
        recorder.start()
        assert all(recorder.add_frame(frame_at(number / 30)) for number in range(3 * QUEUE_SIZE))
    assert len(saved_in(tmp_path)) == 3 * QUEUE_SIZE


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
def test_a_full_disk_stops_the_recording_and_keeps_whole_files(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
        recorder = Recorder(fake_camera(live=False), tmp_path / "data", "a", 0)
        recorder.start()
        for number in range(50):
            recorder.add_frame(frame_at(number / 30, noise))
        with pytest.raises(dataset.DatasetError, match="No space left on device"):
            recorder.close()
        samples = saved_in(tmp_path / "data")
        assert len(samples) > 3
        for sample in samples:
            assert read_image(sample.path).shape == noise.shape
        assert len(list((tmp_path / "data/a").iterdir())) == len(samples)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_no_broken_image(tmp_path):
    """TEACHCAM_KILLS=100 makes a longer run."""
    rng = random.Random(0)
    command = [sys.executable, str(ROOT / "collect/capture.py"), "--label", "x", "--camera", "synthetic:palm"]
    for _ in range(int(os.environ.get("TEACHCAM_KILLS", "8"))):
        before = len(saved_in(tmp_path / "data"))
        process = subprocess.Popen(
            [*command, "--headless", "--fps", "0", "--max-frames", "9999"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        wait_until(lambda old=before, one=process: len(saved_in(tmp_path / "data")) > old or one.poll() is not None)
        assert process.poll() is None
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
    samples = saved_in(tmp_path / "data")
    assert len({sample.session for sample in samples}) >= 8
    for sample in samples:
        read_image(sample.path)
    for line in (tmp_path / "data/sessions.jsonl").read_text().splitlines():
        json.loads(line)


def test_after_a_switch_of_the_camera_sessions_name_the_new_one(tmp_path):
    with Camera("synthetic:palm?seed=1&size=64x48") as camera, Recorder(camera, tmp_path, "x", 0) as recorder:
        for source, flip in (("synthetic:palm?seed=1&size=64x48", None), ("synthetic:palm?seed=2&size=64x48", "180")):
            camera.switch(source, flip)
            recorder.snapshot(camera.read_frame())
            recorder.snapshot(camera.read_frame())
            recorder.start(max_images=2)
            wait_until(lambda: recorder.done)
            recorder.stop()
    lines = [json.loads(line) for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert [(line["camera"], line.get("flip")) for line in lines] == [
        *[("synthetic:palm?seed=1&size=64x48", None)] * 2,
        *[("synthetic:palm?seed=2&size=64x48", "180")] * 2,
    ]
