"""The tutorials' recipes: each is one command, and ends."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import REAL_DATA, ROOT, record

from teachcam.export import to_onnx
from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess
from teachcam.train import finetune
from teachcam.train.config import RunConfig

RECIPES = sorted((ROOT / "train/recipes").glob("*.args"))
QUICK = ["--epochs", "1", "--size", "32", "--weights", "none", "--device", "cpu"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Four sessions and one called `test`, of pictures of 28x28 pixels, and lists of them."""
    home = tmp_path_factory.mktemp("given")
    data = record(home / "data", range(4), ("a", "b"), frames=4)
    for number, path in enumerate(sorted(data.glob("*/*_000[0-3].jpg"))):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (28, 28), interpolation=cv2.INTER_AREA))
        if number % 4 == 0:
            shutil.copy(path, path.with_name(f"test_{number:04d}.jpg"))
    lines = [f"{path.parent.name}/{path.name} {int(path.parent.name == 'b')}" for path in sorted(data.glob("*/*.jpg"))]
    (home / "train.txt").write_text("\n".join(line for line in lines if "test_" not in line))
    (home / "test.txt").write_text("\n".join(line for line in lines if "test_" in line))
    return home


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_ends_with_its_figures(recipe, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [f"@{recipe}", "--data", str(given / "data"), *QUICK, "--out", "runs/x"]
    if recipe.stem == "food":
        asked += ["--train-list", str(given / "train.txt"), "--test-list", str(given / "test.txt")]
    if recipe.stem in ("oct", "thumbs"):  # half a gigabyte of weights, and no other way through the code
        asked += ["--backbone", "squeezenet1_1"]
    assert finetune.main(asked) == 0
    said = capsys.readouterr().out
    assert ("test: accuracy" in said) == (recipe.stem not in ("thumbs", "oct"))
    metrics = json.loads((tmp_path / "runs/x/metrics.json").read_text())
    assert metrics["options"]["changes"]["epochs"] == 1


def test_what_a_recipe_asks_for(monkeypatch):
    asked: list[RunConfig] = []
    monkeypatch.setattr(finetune, "train", lambda options, resumed=False: asked.append(options))
    for recipe in RECIPES:
        finetune.main([f"@{recipe}"])
    by_name = dict(zip((path.stem for path in RECIPES), asked, strict=True))
    assert set(by_name) == {"thumbs", "malaria", "oct", "food", "cifar10", "fashion_mnist"}
    assert by_name["malaria"].head == "mlp"
    assert by_name["malaria"].changes["dropout"] == 0.4
    assert (by_name["fashion_mnist"].weights, by_name["fashion_mnist"].grayscale) == ("none", True)
    assert by_name["thumbs"].changes["backbone_lr"] == by_name["thumbs"].changes["lr"] == 0.001


def test_a_gray_model_of_small_pictures_and_an_mlp_are_exported_and_answer_live(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(given / "data")]
    finetune.main([*data, "--backbone", "small_cnn", "--strategy", "scratch", "--epochs", "2", "--size", "28",
                   "--grayscale", "--augment", "none", "--head", "mlp", "--out", "runs/gray"])  # fmt: skip
    assert to_onnx.main(["--checkpoint", "runs/gray/checkpoint.pt"]) == 0
    classifier = Classifier("runs/gray/model.onnx", "cpu")
    assert (classifier.contract.color_order, classifier.contract.input_size) == ("GRAY", (28, 28))
    color = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    gray = cv2.cvtColor(cv2.cvtColor(color, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    shown = preprocess(color, classifier.contract)
    assert (shown == shown[..., :1]).all()
    assert classifier.classify(color).probabilities == pytest.approx(classifier.classify(gray).probabilities, abs=1e-3)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs the real recordings")
def test_fashion_mnist_is_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = f"@{ROOT / 'train/recipes/fashion_mnist.args'}"
    finetune.main([recipe, "--data", str(REAL_DATA / "fashion_mnist"), "--epochs", "8", "--out", "runs/x"])
    assert json.loads((tmp_path / "runs/x/metrics.json").read_text())["test"]["accuracy"] > 0.7
