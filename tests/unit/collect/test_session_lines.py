"""A line of sessions.jsonl that is damaged is named, and so is the session that lost its line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from conftest import call_here
from test_scenes import record_room, scenes_of

from teachcam.collect.camera import Camera
from teachcam.collect.dataset import list_samples, read_places
from teachcam.collect.inspection import inspect_samples
from teachcam.collect.recorder import Recorder
from teachcam.collect.session_lines import describe_damage, describe_unlisted
from teachcam.train import run
from teachcam.train.run_config import RunConfig


def cut_last_line(data: Path) -> None:
    """End the file in the middle of its last line, as a power cut does."""
    path = data / "sessions.jsonl"
    path.write_bytes(path.read_bytes()[:-40])


def test_a_session_that_lost_its_line_joins_the_place_it_looks_like(tmp_path):
    first, second = record_room(tmp_path, 1, place="kitchen"), record_room(tmp_path, 2, place="attic")
    cut_last_line(tmp_path)
    assert len(read_places(tmp_path)) == 3
    assert scenes_of(tmp_path) == dict.fromkeys(first, "kitchen") | dict.fromkeys(second, "attic")
    (line,) = describe_unlisted(tmp_path, inspect_samples(list_samples(tmp_path)).scenes)
    assert line.endswith(
        f"1 session has no line in sessions.jsonl, and a place by the background: {second[1]} in attic"
    )


def test_check_asks_for_the_place_of_a_session_that_lost_its_line(tmp_path):
    record_room(tmp_path / "data", 1, place="kitchen")
    (lost,) = record_room(tmp_path / "data", 2, labels=("palm",), place="kitchen")
    cut_last_line(tmp_path / "data")
    shown = call_here("collect/check.py", cwd=tmp_path).stdout
    assert "sessions.jsonl: line 3 can't be read as a whole" in shown
    command = f"--data data --place NAME --sessions {lost}"
    assert command in shown
    arguments = command.replace("NAME", "kitchen").split()
    assert call_here("collect/check.py", *arguments, cwd=tmp_path).returncode == 0
    assert set(scenes_of(tmp_path / "data").values()) == {"kitchen"}
    assert "no line in" not in call_here("collect/check.py", cwd=tmp_path).stdout


def test_where_nobody_names_places_no_line_is_missed(tmp_path):
    record_room(tmp_path, 1)
    scenes = inspect_samples(list_samples(tmp_path)).scenes
    assert describe_unlisted(tmp_path, scenes) == []
    (tmp_path / "sessions.jsonl").unlink()
    assert describe_unlisted(tmp_path, scenes) == []
    assert describe_damage(tmp_path) == describe_damage(tmp_path / "nowhere") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"session": "a"}\nrubbish\n', "line 2 can't be read"),
        ("1\n2\n3\n", "lines 1, 2 and 3 can't be read"),
        ("1\n" * 9, "lines 1, 2, 3, 4 and 5 more can't be read"),
        ('{"session": "a", "place": ["kitchen"]}\n', "line 1 can't be read"),
    ],
)
def test_damage_is_one_line(tmp_path, text, words):
    (tmp_path / "sessions.jsonl").write_text(text)
    assert words in describe_damage(tmp_path)
    assert "\n" not in describe_damage(tmp_path)


def test_a_file_that_can_not_be_read_is_said(tmp_path):
    (tmp_path / "sessions.jsonl").mkdir()
    assert f"can't read {tmp_path / 'sessions.jsonl'}: " in describe_damage(tmp_path)


def test_whoever_records_is_told_once(tmp_path, caplog):
    (tmp_path / "sessions.jsonl").write_text("rubbish\n")
    with caplog.at_level(logging.WARNING, "teachcam"), Camera("synthetic:palm") as camera:
        Recorder(camera, tmp_path, "palm").close()
    assert caplog.text.count("line 1 can't be read") == 1


def test_training_is_told(tmp_path):
    for seed in (1, 2):
        record_room(tmp_path / "data", seed, place=f"room {seed}")
    cut_last_line(tmp_path / "data")
    dataset, _ = run._read_dataset(RunConfig(data=tmp_path / "data"))
    (line,) = dataset.left_out
    assert "sessions.jsonl: line 4 can't be read as a whole" in line


def test_a_place_that_was_typed_as_a_number_counts(tmp_path):
    (tmp_path / "sessions.jsonl").write_text(json.dumps({"session": "a", "place": 5}) + "\n")
    assert read_places(tmp_path) == {"a": "5"}
