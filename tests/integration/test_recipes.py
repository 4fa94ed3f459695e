"""The recipes of train/recipes: each is one command that trains as a known tutorial does."""

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
from teachcam.train.run_config import RunConfig

RECIPES = sorted((ROOT / "train/recipes").glob("*.args"))
QUICK = ["--epochs", "1", "--image-size", "32", "--weights", "none", "--device", "cpu"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a dataset of 28x28 images, in four sessions and one named `test`, and with file lists."""
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


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_reports_its_accuracy(recipe, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [f"@{recipe}", "--data", str(given / "data"), *QUICK, "--out", "runs/x"]
    if recipe.stem == "food":
        options += ["--train-list", str(given / "train.txt"), "--test-list", str(given / "test.txt")]
    if recipe.stem in ("oct", "thumbs"):  # their weights are half a gigabyte, and the code is the same
        options += ["--backbone", "squeezenet1_1"]
    assert finetune.main(options) == 0
    stdout = capsys.readouterr().out
    assert ("test: accuracy" in stdout) == (recipe.stem not in ("thumbs", "oct"))
    metrics = json.loads((tmp_path / "runs/x/metrics.json").read_text())
    assert metrics["config"]["overrides"]["epochs"] == 1


def test_options_of_the_recipes(monkeypatch):
    configs: list[RunConfig] = []
    monkeypatch.setattr(finetune, "train", configs.append)
    for recipe in RECIPES:
        finetune.main([f"@{recipe}"])
    by_name = dict(zip((path.stem for path in RECIPES), configs, strict=True))
    assert set(by_name) == {"thumbs", "malaria", "oct", "food", "cifar10", "fashion_mnist"}
    assert by_name["malaria"].head == "mlp"
    assert by_name["malaria"].overrides["dropout"] == 0.4
    assert (by_name["fashion_mnist"].weights, by_name["fashion_mnist"].grayscale) == ("none", True)
    settings = by_name["thumbs"].training
    assert settings.backbone_lr == settings.lr == 0.001


def test_a_gray_model_of_small_images_with_an_mlp_head_is_exported_and_runs_live(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(given / "data")]
    finetune.main([*data, "--backbone", "small_cnn", "--strategy", "scratch", "--epochs", "2", "--image-size", "28",
                   "--grayscale", "--augment", "none", "--head", "mlp", "--out", "runs/gray"])  # fmt: skip
    assert to_onnx.main(["--checkpoint", "runs/gray/checkpoint.pt"]) == 0
    classifier = Classifier("runs/gray/model.onnx", "cpu")
    assert (classifier.contract.color_order, classifier.contract.input_size) == ("GRAY", (28, 28))
    color = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    gray = cv2.cvtColor(cv2.cvtColor(color, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    model_input = preprocess(color, classifier.contract)
    assert (model_input == model_input[..., :1]).all()
    assert classifier.classify(color).probabilities == pytest.approx(classifier.classify(gray).probabilities, abs=1e-3)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_fashion_mnist_recipe_reaches_its_accuracy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = f"@{ROOT / 'train/recipes/fashion_mnist.args'}"
    finetune.main([recipe, "--data", str(REAL_DATA / "fashion_mnist"), "--epochs", "8", "--out", "runs/x"])
    assert json.loads((tmp_path / "runs/x/metrics.json").read_text())["test"]["accuracy"] > 0.7
