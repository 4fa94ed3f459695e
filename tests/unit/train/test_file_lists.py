"""File lists: which images to train on and which to test on."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import LABELS

from teachcam.collect.dataset import list_samples
from teachcam.errors import DatasetError
from teachcam.train import finetune
from teachcam.train.data.file_lists import read_lists
from teachcam.train.model.checkpoint import load_checkpoint


@pytest.fixture
def lists(dataset, tmp_path):
    """A training list and a test list whose class ids are not in alphabetical order, and their dataset folder."""
    data = shutil.copytree(dataset, tmp_path / "data")
    class_ids = dict(zip(LABELS, (2, 0, 1), strict=True))
    lines = [f"{sample.label}/{sample.path.name} {class_ids[sample.label]}" for sample in list_samples(data)]
    for name, own in (("train", [line for i, line in enumerate(lines) if i % 5]), ("test", lines[::5])):
        (tmp_path / f"{name}.txt").write_text("\n".join(own) + "\n\n")
    return tmp_path / "train.txt", tmp_path / "test.txt", data


def test_labels_are_in_the_order_of_their_class_ids(lists):
    train, test, labels = read_lists(*lists)
    assert labels == ("thumbs_down", "thumbs_up", "palm")
    assert (len(train), len(test)) == (48, 12)


def test_listed_samples_have_the_labels_and_sessions_of_the_folder(lists):
    train, test, _ = read_lists(*lists)
    listed = {(sample.path.resolve(), sample.label, sample.session) for sample in train + test}
    assert listed == {(sample.path.resolve(), sample.label, sample.session) for sample in list_samples(lists[2])}


def test_labels_are_class_ids_if_all_files_are_in_one_folder(tmp_path):
    (tmp_path / "all").mkdir()
    for number in range(4):
        (tmp_path / f"all/a_{number}.jpg").touch()
    (tmp_path / "train.txt").write_text("".join(f"all/a_{number}.jpg {number % 2 * 7}\n" for number in range(4)))
    train, test, labels = read_lists(tmp_path / "train.txt", None, tmp_path)
    assert (labels, test) == (("0", "7"), [])
    assert [sample.label for sample in train] == ["0", "0", "7", "7"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("palm/none.jpg 0", "line 49: no file palm/none.jpg"),
        ("palm", "line 49: 'palm' is not a path and a class id"),
        ("palm/x.jpg zero", "is not a path and a class id"),
    ],
)
def test_an_unreadable_line_is_named(line, message, lists):
    train, test, data = lists
    train.write_text(train.read_text().strip() + f"\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        read_lists(train, test, data)


def test_a_class_that_only_the_test_list_has_is_refused(lists):
    train, test, data = lists
    lines = train.read_text().splitlines()
    train.write_text("\n".join(line for line in lines if not line.endswith(" 2")))
    with pytest.raises(DatasetError, match="class 2 does not occur in"):
        read_lists(train, test, data)


def test_a_file_with_two_class_ids_is_refused(lists):
    train, test, data = lists
    name = train.read_text().split()[0]
    train.write_text(f"{train.read_text()}{name} 1\n")
    with pytest.raises(DatasetError, match="has two class ids"):
        read_lists(train, test, data)


def test_a_file_in_both_lists_is_refused(lists):
    train, test, data = lists
    name, class_id = train.read_text().splitlines()[0].split()
    test.write_text(f"\ufeff{data.absolute() / name}\t{class_id}\n{test.read_text()}")  # spelled in another way
    with pytest.raises(DatasetError, match="is in both lists"):
        read_lists(train, test, data)


@pytest.mark.slow
def test_a_run_on_lists(lists, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, test, data = map(str, lists)
    options = ["--train-list", train, "--test-list", test, "--data", data, "--out", "runs/x"]
    assert finetune.main([*options, "--strategy", "head", "--epochs", "2", "--split", "frames", "--no-refit"]) == 0
    metrics = json.loads((tmp_path / "runs/x/metrics.json").read_text())
    assert metrics["labels"] == ["thumbs_down", "thumbs_up", "palm"]
    assert metrics["test"]["num_images"] == 12
    assert "test: accuracy" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "runs/x/checkpoint.pt")
    files = [name for _, name in checkpoint.validation_files + checkpoint.training_files]
    assert len(files) == 48
    assert not set(files) & {line.split()[0] for line in lists[1].read_text().splitlines() if line}
