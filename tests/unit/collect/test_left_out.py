"""What is left out of a dataset, and labels that look alike: counted and said by every command."""

from __future__ import annotations

import json
import shutil
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL, assert_one_line_error, call_here

from teachcam.collect.dataset import Session, list_samples
from teachcam.collect.left_out import describe_left_out, describe_similar_labels
from teachcam.images import read_image

NFD = unicodedata.normalize("NFD", "grün")


@pytest.fixture
def data(dataset, tmp_path) -> Path:
    """A copy of the dataset with files that are not used."""
    data = shutil.copytree(dataset, tmp_path / "data")
    for name in ("photos/IMG_1.HEIC", "photos/IMG_2.heic", "palm/clip.MP4", "palm/notes", "empty/.DS_Store"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"x")
    image = next((data / "palm").glob("*.jpg"))
    for folder in ("more", ".ipynb_checkpoints"):
        (data / "palm" / folder).mkdir()
        shutil.copy(image, data / "palm" / folder)
    return data


LINES = [
    "empty has no image that can be read, so it is no label",
    "left out of palm: 1 without a suffix, 1 .mp4 (record from them: teachcam capture --camera FILE), "
    "1 images in its subfolders (move them into {data}/palm)",
    "photos has no image that can be read, so it is no label: 2 .heic (save them as JPEG)",
]


def test_what_is_left_out_is_counted_by_label_and_reason(data, dataset):
    assert describe_left_out(data) == [line.format(data=data) for line in LINES]
    assert describe_left_out(data, ("photos",)) == LINES[2:]
    assert describe_left_out(dataset) == []


def test_loose_images_and_broken_links_are_counted(data, tmp_path):
    shutil.copy(next((data / "palm").glob("*.jpg")), data / "loose.jpg")
    (data / "fist").mkdir()
    (data / "fist" / "gone_1.jpg").symlink_to("nowhere.jpg")
    lines = describe_left_out(data)
    assert f"left out: 1 images in {data} itself (move them into the folders of their labels)" in lines
    assert "fist has no image that can be read, so it is no label: 1 broken links" in lines


def test_check_training_and_its_report_say_what_is_left_out(data, tmp_path):
    checked = call_here("collect/check.py", "--data", data, cwd=tmp_path)
    assert "warning: photos has no image that can be read" in checked.stdout
    trained = call_here("train/finetune.py", "--data", data, "--strategy", "head", *SMALL, "--out", "run", cwd=tmp_path)
    assert trained.returncode == 0
    assert "photos has no image that can be read" in trained.stderr
    assert len(json.loads((tmp_path / "run/metrics.json").read_text())["left_out"]) == 3
    assert "photos has no image that can be read" in (tmp_path / "run/report.html").read_text()
    chosen = call_here("train/finetune.py", "--data", data, "--labels", "palm", "photos", cwd=tmp_path)
    assert_one_line_error(chosen, "--labels: photos has no image that can be read", "2 .heic")


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPG", "tif", "tiff", "ppm"])
def test_all_kinds_of_images_are_samples(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    codec = {"jfif": ".jpg", "jpe": ".jpg"}.get(suffix, f".{suffix.lower()}")
    (tmp_path / f"a/x_1.{suffix}").write_bytes(cv2.imencode(codec, np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    (sample,) = list_samples(tmp_path)
    assert read_image(sample.path).shape == (8, 8, 3)


def test_both_forms_of_a_letter_are_one_label(tmp_path):
    for form in ("grün", NFD):
        folder = tmp_path / form
        folder.mkdir()
        cv2.imwrite(str(folder / f"{form}_1.jpg"), np.zeros((8, 8, 3), np.uint8))
    assert {(sample.label, sample.session) for sample in list_samples(tmp_path)} == {("grün", "grün")}
    assert describe_similar_labels(tmp_path) == [
        "2 folders are called grün, in different forms of Unicode: they are one label"
    ]
    assert Session(tmp_path, NFD).label == "grün"


@pytest.mark.parametrize("other", ["Palm", "PALM", "palm ", "\uff50alm"])
def test_labels_that_look_alike_are_named(tmp_path, other):
    for label in ("palm", other, "fist"):
        (tmp_path / label).mkdir()
    (line,) = describe_similar_labels(tmp_path)
    assert repr(other) in line
    assert "look alike" in line


def test_a_label_can_be_given_in_both_forms(tmp_path, dataset):
    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "palm").rename(data / "grün")
    arguments = ("--data", data, "--labels", NFD, "thumbs_up", "--strategy", "head", *SMALL, "--out", "run")
    assert call_here("train/finetune.py", *arguments, cwd=tmp_path).returncode == 0
    assert call_here("export/to_onnx.py", "--checkpoint", "run/checkpoint.pt", cwd=tmp_path).returncode == 0
    arguments = ("--model", "run/model.onnx", "--camera", data, "--headless", "--on", f"{NFD}=true")
    assert call_here("live/run.py", *arguments, cwd=tmp_path).returncode == 0


def test_transparency_is_turned_upright_with_the_image(tmp_path):
    image = np.zeros((20, 30, 4), np.uint8)
    image[:, :15], image[:, 15:] = (0, 0, 200, 255), (0, 150, 0, 0)  # the right half is transparent
    content = cv2.imencode(".png", image)[1].tobytes()
    # A chunk eXIf with orientation 6: the image has to be turned clockwise by a quarter, so the left becomes the top.
    exif = b"eXIf" + b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    chunk = (len(exif) - 4).to_bytes(4, "big") + exif + zlib.crc32(exif).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(content[:33] + chunk + content[33:])
    read = read_image(tmp_path / "x.png")
    assert (read[:15] == (0, 0, 200)).all()
    assert (read[15:] == 255).all()


def test_what_is_transparent_is_white(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 4), np.uint8)
    image[:10, :, 3], image[10:, :15, 3], image[10:, 15:, 3] = 0, 255, 51
    for name in ("x.png", "x.webp", "x.tiff"):
        parameters = [cv2.IMWRITE_WEBP_QUALITY, 101] if name == "x.webp" else []  # 101: without loss
        cv2.imwrite(str(tmp_path / name), image, parameters)
        read = read_image(tmp_path / name).astype(int)
        assert (read[:10] == 255).all()
        assert np.abs(read[10:, :15] - image[10:, :15, :3]).max() == 0
        assert np.abs(read[10:, 15:] - (0.2 * image[10:, 15:, :3] + 0.8 * 255)).max() < 1
    deep = image.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.abs(read_image(tmp_path / "deep.png").astype(int) - read_image(tmp_path / "x.png")).max() <= 1
