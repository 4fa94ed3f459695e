"""Given lists of files to learn from and to test on."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import LABELS

from teachcam.collect.dataset import read_items
from teachcam.errors import DatasetError
from teachcam.train import finetune
from teachcam.train.data.file_lists import read_lists
from teachcam.train.model.checkpoint import load_checkpoint


@pytest.fixture
def lists(dataset, tmp_path):
    """A list to learn from and one to test on, the labels not in their alphabet's order."""
    data = shutil.copytree(dataset, tmp_path / "data")
    class_ids = dict(zip(LABELS, (2, 0, 1), strict=True))
    lines = [f"{item.label}/{item.path.name} {class_ids[item.label]}" for item in read_items(data)]
    for name, own in (("train", [line for i, line in enumerate(lines) if i % 5]), ("test", lines[::5])):
        (tmp_path / f"{name}.txt").write_text("\n".join(own) + "\n\n")
    return tmp_path / "train.txt", tmp_path / "test.txt", data


def test_labels_are_in_the_order_of_their_class_ids(lists):
    learned, test, labels = read_lists(*lists)
    assert labels == ("thumbs_down", "thumbs_up", "palm")
    assert (len(learned), len(test)) == (48, 12)
    assert {item.session for item in learned} <= {item.session for item in read_items(lists[2])}


def test_where_folders_say_nothing_the_label_is_the_class_id(tmp_path):
    (tmp_path / "all").mkdir()
    for number in range(4):
        (tmp_path / f"all/a_{number}.jpg").touch()
    (tmp_path / "train.txt").write_text("".join(f"all/a_{number}.jpg {number % 2 * 7}\n" for number in range(4)))
    items, test, labels = read_lists(tmp_path / "train.txt", None, tmp_path)
    assert (labels, test) == (("0", "7"), [])
    assert [item.label for item in items] == ["0", "0", "7", "7"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("palm/none.jpg 0", "line 49: no file palm/none.jpg"),
        ("palm", "line 49: 'palm' is not a path and a class id"),
        ("palm/x.jpg zero", "is not a path and a class id"),
    ],
)
def test_a_line_that_can_not_be_read_is_named(line, complaint, lists):
    train, test, data = lists
    train.write_text(train.read_text().strip() + f"\n{line}\n")
    with pytest.raises(DatasetError, match=complaint):
        read_lists(train, test, data)


def test_what_is_tested_on_is_not_trained_on(lists):
    train, test, data = lists
    name, class_id = train.read_text().splitlines()[0].split()
    test.write_text(f"\ufeff{data.absolute() / name}\t{class_id}\n{test.read_text()}")  # however it is spelt
    with pytest.raises(DatasetError, match="is in both lists"):
        read_lists(train, test, data)


def test_a_run_on_lists(lists, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, test, data = map(str, lists)
    where = ["--train-list", train, "--test-list", test, "--data", data, "--out", "runs/x"]
    assert finetune.main([*where, "--strategy", "head", "--epochs", "2", "--split", "frames", "--no-refit"]) == 0
    metrics = json.loads((tmp_path / "runs/x/metrics.json").read_text())
    assert metrics["labels"] == ["thumbs_down", "thumbs_up", "palm"]
    assert metrics["test"]["frames"] == 12
    assert "test: accuracy" in capsys.readouterr().out
    checkpoint = load_checkpoint(tmp_path / "runs/x/checkpoint.pt")
    tested = {line.split()[0] for line in lists[1].read_text().splitlines() if line}
    assert not tested & {name for _, name in checkpoint.validation + checkpoint.trained_on}
    assert len(checkpoint.validation + checkpoint.trained_on) == 48
