"""The check command finds planted faults, moves them away, and moves them back."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REAL_DATA, assert_one_line_error, call, call_here, record

from teachcam.collect import check, inspection
from teachcam.collect.dataset import Sample, Session, list_samples
from teachcam.collect.inspection import inspect_samples
from teachcam.collect.synthetic import render
from teachcam.errors import UnreadableImage
from teachcam.images import read_image


@pytest.fixture
def data(tmp_path) -> Path:
    """A good dataset: three labels, in four rooms each."""
    return record(tmp_path / "data", range(10, 14), ("palm", "thumbs_down", "thumbs_up"), frames=8)


def kinds(data: Path) -> dict[str, int]:
    return {finding.kind: len(finding.samples) for finding in inspect_samples(list_samples(data)).findings}


def files(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_a_good_dataset_has_no_findings(data):
    inspection = inspect_samples(list_samples(data))
    assert inspection.findings == []
    assert inspection.advice == ["record a further label, none, with what the camera sees when no other label is there"]
    for summary in inspection.labels.values():
        assert (summary.images, summary.sessions, summary.scenes) == (32, 4, 4)


def test_an_image_under_two_labels_is_an_error_even_if_saved_again(data):
    first, second, *_ = sorted((data / "palm").iterdir())
    shutil.copy(first, data / "thumbs_up" / "copy_0001.jpg")
    cv2.imwrite(str(data / "thumbs_up/copy_0002.jpg"), cv2.imread(str(second)), [cv2.IMWRITE_JPEG_QUALITY, 70])
    (finding,) = inspect_samples(list_samples(data)).errors
    assert finding.kind == "same image"
    assert {sample.path.name for sample in finding.samples} == {
        first.name,
        second.name,
        "copy_0001.jpg",
        "copy_0002.jpg",
    }


def test_images_that_differ_in_a_small_part_are_no_duplicates(tmp_path):
    """Labels may differ by as little as a twentieth of the image's width."""
    for seed in range(3):
        room = render("none", seed, 1, 640, 480)[0]
        for label, color in (("present", (30, 60, 200)), ("missing", (90, 90, 90))):
            cv2.circle(room, (400, 200), 16, color, -1)
            Session(tmp_path, label).save(room)
    assert "same image" not in kinds(tmp_path)


def test_repeated_images_are_found_except_the_first(data):
    original = sorted((data / "palm").iterdir())[0]
    for number in range(5):
        noise = np.random.default_rng(number).normal(0, 2, (240, 320, 3))
        noisy = np.clip(cv2.imread(str(original)) + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(data / f"palm/zz_{number:04d}.jpg"), noisy)
    assert kinds(data)["near-duplicate"] == 5


def test_unreadable_blurred_dark_and_bright_images_are_found(data):
    paths = sorted((data / "thumbs_up").iterdir())
    images = [read_image(path) for path in paths[:4]]
    paths[0].write_bytes(paths[0].read_bytes()[:-900])
    paths[1].write_bytes(b"")
    cv2.imwrite(str(paths[2]), cv2.GaussianBlur(images[2], (0, 0), 6))
    cv2.imwrite(str(paths[3]), images[3] // 6)
    cv2.imwrite(str(paths[4]), 215 + images[3] // 8)
    found = {
        finding.kind: [sample.path for sample in finding.samples]
        for finding in inspect_samples(list_samples(data)).findings
    }
    assert found["unreadable"] == paths[:2]
    assert paths[2] in found["blurred"]
    assert found["too dark"] == [paths[3]]
    assert found["too bright"] == [paths[4]]


def test_it_advises_what_to_record_next(tmp_path):
    record(tmp_path, [1], ("palm",), frames=30)
    record(tmp_path, [1], ("thumbs_up",), frames=5)
    advice = " | ".join(inspect_samples(list_samples(tmp_path)).advice)
    assert "record every label in another place, too: everything was recorded in one" in advice
    assert "record more of thumbs_up: it has 5 images, and palm has 30" in advice
    assert "record a further label, none" in advice


def test_it_advises_to_record_in_three_places(tmp_path):
    record(tmp_path, [1, 2], ("palm",), frames=30)
    record(tmp_path, [1], ("thumbs_up",), frames=30)
    advice = " | ".join(inspect_samples(list_samples(tmp_path)).advice)
    assert "record palm in 1 more place: " in advice
    assert "record thumbs_up in 2 more places: " in advice


def test_one_label_alone_is_an_error(tmp_path):
    record(tmp_path / "data", [1, 2], ("palm",))
    result = call("collect/check.py", cwd=tmp_path)
    assert_one_line_error(result, "not ready to train on", "only one label")


def test_fix_moves_and_undo_moves_back(data, tmp_path):
    paths = sorted((data / "palm").iterdir())
    shutil.copy(paths[0], data / "thumbs_up" / "copy_0001.jpg")
    paths[1].write_bytes(b"junk")
    before = files(data)
    assert_one_line_error(call_here("collect/check.py", cwd=tmp_path), "under two labels")

    result = call_here("collect/check.py", "--fix", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    after = files(data)
    assert before.keys() - after.keys() >= {f"palm/{paths[0].name}", f"palm/{paths[1].name}", "thumbs_up/copy_0001.jpg"}
    assert after[f".rejected/palm/{paths[1].name}"] == b"junk"
    assert kinds(data) == {}
    assert call_here("collect/check.py", cwd=tmp_path).returncode == 0

    result = call_here("collect/check.py", "--undo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert files(data) == before
    assert_one_line_error(call_here("collect/check.py", "--undo", cwd=tmp_path), "nothing to move back")


def test_undo_keeps_a_damaged_list_of_moves(data, tmp_path):
    paths = sorted((data / "palm").iterdir())[:2]
    for path in paths:
        path.write_bytes(b"junk")
    call_here("collect/check.py", "--fix", cwd=tmp_path)
    moves = data / ".rejected" / "moves.jsonl"
    first, second = moves.read_bytes().splitlines()[:2]
    moves.write_bytes(first + b"\n" + second[:-9])
    undone = call_here("collect/check.py", "--undo", cwd=tmp_path)
    assert undone.stdout == "1 files moved back\n"
    assert "moves.jsonl is damaged: files that are still in" in undone.stderr
    assert moves.exists()
    assert [path.exists() for path in paths] == [True, False]


def test_the_html_report_has_images(data, tmp_path):
    (data / "palm/bad_0001.jpg").write_bytes(b"junk")
    result = call_here("collect/check.py", "--html", "page.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 12  # the first of each session
    assert "bad_0001.jpg" in page
    assert "http" not in page
    assert_one_line_error(call_here("collect/check.py", "--html", "no/such/folder.html", cwd=tmp_path), "can't write")


def test_labels_are_escaped_in_the_page(tmp_path):
    (tmp_path / "<b>x").mkdir()
    (tmp_path / "<b>x/a_0001.jpg").write_bytes(b"junk")
    samples = list_samples(tmp_path)
    assert "<b>x" not in check.to_html(tmp_path, samples, inspect_samples(samples))


def test_undo_leaves_the_dataset_if_the_list_of_moves_names_something_else(data):
    (data / ".rejected").mkdir()
    (data / ".rejected/moves.jsonl").write_text('{"file": "../../outside.jpg"}\n{"file": "/etc/passwd"}\n')
    assert check.undo(data) == 0


@pytest.mark.slow
@pytest.mark.real_data
def test_the_advice_on_real_recordings():
    inspection = inspect_samples(list_samples(REAL_DATA / "rps"))
    assert inspection.errors == []
    assert inspection.advice == ["record none in room06, room10, room11 too: the other labels were recorded there"]
    assert inspection.labels["none"].sessions == 8
    with pytest.raises(UnreadableImage):
        read_image(REAL_DATA / "README.md")


def test_the_index_for_many_images_finds_what_comparing_all_pairs_finds(monkeypatch):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 256, (30, 24 * 32 * 3))
    signatures = np.clip(bases[rng.integers(0, 30, 300)] + rng.integers(-5, 6, (300, 1)), 0, 255).astype(np.uint8)
    samples = [Sample(Path(f"{index}.jpg"), "ab"[index % 7 == 0], f"s{index}") for index in range(300)]
    expected = inspection._find_duplicates(samples, signatures)
    assert all(expected)
    monkeypatch.setattr(inspection, "MIN_FOR_INDEX", 10)
    monkeypatch.setattr(inspection, "CHUNK", 64)
    assert inspection._find_duplicates(samples, signatures) == expected
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)  # as on a device
    assert inspection._find_duplicates(samples, signatures) == expected
