"""Scenes: which sessions were recorded in one place."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_line_error, call_here

from teachcam.collect import scenes as scenes_module
from teachcam.collect.dataset import Sample, Session, last_place, list_samples, read_places
from teachcam.collect.inspection import inspect_samples
from teachcam.collect.quality import SIGNATURE
from teachcam.collect.scenes import find_scenes
from teachcam.collect.synthetic import render

LABELS = ("palm", "thumbs_up")


def record_room(data: Path, seed: int, labels=LABELS, **metadata: object) -> list[str]:
    """Record a session for each label; return their names."""
    sessions = []
    for label in labels:
        session = Session(data, label, **metadata)
        for image in render(label, seed, 36, 320, 240)[::6]:
            session.save(image)
        sessions.append(session.id)
    return sessions


def scenes_of(data: Path) -> dict[str, str]:
    """Return the scene of each session."""
    inspection = inspect_samples(list_samples(data))
    return {sample.session: scene for scene, samples in inspection.scenes.items() for sample in samples}


def room(rng: np.random.Generator) -> np.ndarray:
    """Return a background as a signature."""
    return rng.uniform(30, 220, (SIGNATURE[0], SIGNATURE[1], 3))


def samples_of(**sessions: str) -> list[Sample]:
    """Four samples of each session, which is given by its label."""
    return [Sample(Path(f"{n}.jpg"), label, session) for session, label in sessions.items() for n in range(4)]


def signatures_of(*backgrounds: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = [background + rng.normal(0, 2, background.shape) for background in backgrounds for _ in range(4)]
    return np.array(images, np.float32).reshape(len(images), -1)


def test_sessions_before_one_background_are_a_scene(tmp_path):
    first, second = record_room(tmp_path, 1), record_room(tmp_path, 2)
    found = scenes_of(tmp_path)
    assert found[first[0]] == found[first[1]] == min(first)  # both may begin in the same millisecond
    assert found[second[0]] == found[second[1]] == min(second)


def test_a_named_place_is_a_scene_whatever_it_looks_like(tmp_path):
    first, second = record_room(tmp_path, 1, place="kitchen"), record_room(tmp_path, 2, place="kitchen")
    same_room = record_room(tmp_path, 1, place="attic")
    assert {scenes_of(tmp_path)[session] for session in first + second} == {"kitchen"}
    assert {scenes_of(tmp_path)[session] for session in same_room} == {"attic"}


def test_another_light_is_allowed_for_only_soon_after():
    background = room(np.random.default_rng(1)) * 0.7
    signatures = signatures_of(background, background + 40)
    for times, joined in ((("100000", "100200"), True), (("100000", "113000"), False)):
        names = [f"20260101T{time}000-aaaaaa" for time in times]
        scenes = find_scenes(samples_of(**dict(zip(names, LABELS, strict=True))), signatures)
        assert (scenes.scene_of[names[0]] == scenes.scene_of[names[1]]) == joined
        assert scenes.background_of[names[0]] != scenes.background_of[names[1]]


def test_what_follows_at_once_in_another_place_is_another_scene():
    rng = np.random.default_rng(1)
    names = ["20260101T100000000-aaaaaa", "20260101T100100000-bbbbbb"]
    scenes = find_scenes(samples_of(**dict(zip(names, LABELS, strict=True))), signatures_of(room(rng), room(rng)))
    assert scenes.scene_of == {name: name for name in names}


def test_sessions_with_several_labels_are_never_joined():
    background = room(np.random.default_rng(1))
    samples = samples_of(a="x", b="x", c="x") + samples_of(a="y", b="y")
    scenes = find_scenes(samples, signatures_of(*[background] * 5))
    assert scenes.scene_of["a"] != scenes.scene_of["b"]
    assert scenes.scene_of["c"] == scenes.scene_of["a"]  # one label: it was recorded in front of the same background


def test_capture_writes_and_remembers_the_place(tmp_path):
    camera = ("--camera", "synthetic:palm?seed=1", "--headless", "--max-frames", "2", "--label", "palm")
    assert call_here("collect/capture.py", *camera, "--place", "küche", cwd=tmp_path).returncode == 0
    again = call_here("collect/capture.py", *camera, cwd=tmp_path)
    assert "place: küche; for another one, give --place NAME" in again.stderr
    assert set(read_places(tmp_path / "data").values()) == {"küche"}
    assert len(read_places(tmp_path / "data")) == 2
    assert_one_line_error(call_here("collect/capture.py", *camera, "--place", "a\nb", cwd=tmp_path), "place 'a\\nb'")


def test_a_place_is_remembered_for_an_hour(tmp_path):
    def line(age: float, **more: str) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - age))
        return json.dumps({"session": "s", "label": "a", "time": when, **more}) + "\n"

    (tmp_path / "sessions.jsonl").write_text(line(60, place="kitchen") + '{"session": "s", "undone": 1}\ndamaged\n[]\n')
    assert last_place(tmp_path) == "kitchen"
    (tmp_path / "sessions.jsonl").write_text(line(3700, place="kitchen"))
    assert last_place(tmp_path) == ""
    (tmp_path / "sessions.jsonl").write_text(line(60, place="kitchen") + line(10))
    assert last_place(tmp_path) == ""
    assert last_place(tmp_path / "nowhere") == ""


def test_check_shows_joins_and_parts_scenes(tmp_path):
    first, second = record_room(tmp_path / "data", 1), record_room(tmp_path / "data", 2)
    shown = call_here("collect/check.py", cwd=tmp_path).stdout
    assert f"scene {first[0]} ({first[0]}, {first[1]}): 12 images of palm, thumbs_up" in shown
    done = call_here("collect/check.py", "--place", "kitchen", "--sessions", *first, second[0], cwd=tmp_path)
    assert done.stdout == "3 sessions of kitchen\n"
    done = call_here("collect/check.py", "--place", "attic", "--sessions", f"{first[1]}*", cwd=tmp_path)
    assert done.stdout == "1 session of attic\n"
    # The last one has no name. It is in front of the background of the third, and so in the kitchen, too.
    found = scenes_of(tmp_path / "data")
    assert [found[session] for session in first + second] == ["kitchen", "attic", "kitchen", "kitchen"]
    done = call_here("collect/check.py", "--place", "", "--sessions", "kitchen", cwd=tmp_path)
    assert done.stdout == "2 sessions of no named place\n"
    assert set(read_places(tmp_path / "data").values()) == {"attic"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--place", "kitchen"], "give both --place NAME and --sessions SESSION"),
        (["--sessions", "x"], "give both --place NAME and --sessions SESSION"),
        (["--place", "kitchen", "--sessions", "nothing"], "no session is called 'nothing'"),
    ],
)
def test_what_check_can_not_do_with_places_is_an_error(options, words, tmp_path):
    record_room(tmp_path / "data", 1)
    assert_one_line_error(call_here("collect/check.py", *options, cwd=tmp_path), words)


def test_no_pair_of_like_backgrounds_is_passed_over():
    rng = np.random.default_rng(0)
    rooms = rng.integers(0, 256, (6, 1, 24 * 32 * 3)).astype(np.float32)
    light = rng.uniform(-14, 14, (40, 1, 1))
    sessions = rooms[rng.integers(0, 6, 40)] + light + rng.normal(0, 3, (40, 5, 24 * 32 * 3))
    backgrounds = scenes_module._Backgrounds(list(np.clip(sessions, 0, 255).astype(np.uint8)))
    found = [backgrounds.find_like(index) for index in range(40)]
    backgrounds._could_agree[:] = True
    assert any(found)
    assert [backgrounds.find_like(index) for index in range(40)] == found
