"""Export: the file is proved on real frames, or it is not there."""

from __future__ import annotations

import copy

import onnx
import pytest
import torch
from conftest import assert_one_line_error, call

from export import parity, to_onnx
from train.checkpoint import load_checkpoint
from train.contract import METADATA_KEY, Contract


def test_the_file_describes_itself(trained):
    graph = onnx.load(str(trained / "model.onnx"))
    onnx.checker.check_model(graph, full_check=True)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert Contract.from_json(properties[METADATA_KEY]) == load_checkpoint(trained / "checkpoint.pt").contract
    assert [entry.version for entry in graph.opset_import] == [17]
    (frames,) = graph.graph.input
    assert frames.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [size.dim_value for size in frames.type.tensor_type.shape.dim] == [1, 224, 224, 3]


@pytest.mark.parametrize("backbone", ["alexnet", "resnet18"])
def test_other_backbones_export_with_parity(backbone, dataset, tmp_path, monkeypatch, capsys):
    from train import finetune

    monkeypatch.chdir(tmp_path)
    arguments = [
        "--data",
        str(dataset),
        "--backbone",
        backbone,
        "--weights",
        "none",
        "--out",
        "run",
        "--strategy",
        "head",
    ]
    assert finetune.main(arguments) == 0
    assert to_onnx.main([]) == 0  # runs/latest points to it
    assert "the same label as PyTorch on all of 60 real frames" in capsys.readouterr().out
    assert (tmp_path / "run/model.onnx").is_file()


def test_a_file_that_answers_otherwise_is_not_left(run_copy, monkeypatch):
    write = to_onnx.write_onnx

    def write_something_else(path, network, contract):
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.head.bias += torch.tensor([0.01, 0, 0])
        write(path, other, contract)

    monkeypatch.setattr(to_onnx, "write_onnx", write_something_else)
    (run_copy / "model.onnx").unlink()
    with pytest.raises(parity.ExportError, match="no file was written"):
        to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt")])
    assert sorted(path.name for path in run_copy.iterdir()) == [
        "checkpoint.pt",
        "metrics.json",
        "report.html",
    ]


def test_parity_counts_what_disagrees(trained, dataset):
    checkpoint = load_checkpoint(trained / "checkpoint.pt")
    model = to_onnx.Deployed(checkpoint.network, checkpoint.contract)
    with torch.no_grad():
        checkpoint.network.head.weight.copy_(checkpoint.network.head.weight.roll(1, 0))
    frames = to_onnx._frames(checkpoint, None)
    measured = parity.measure_parity(trained / "model.onnx", model, frames, checkpoint.contract)
    assert measured.frames == 60
    assert measured.agreeing < 20
    assert measured.largest_difference > 0.1


def test_frames_that_are_gone_are_asked_for(run_copy, dataset, tmp_path):
    checkpoint = torch.load(run_copy / "checkpoint.pt", weights_only=True)
    checkpoint["data"] = str(tmp_path / "moved")
    torch.save(checkpoint, run_copy / "checkpoint.pt")
    with pytest.raises(parity.ExportError, match="say where they are with"):
        to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt")])
    assert to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt"), "--data", str(dataset)]) == 0


def test_bad_input_is_one_line_and_exit_2(tmp_path):
    assert_one_line_error(call("export/to_onnx.py", cwd=tmp_path), "no checkpoint at runs/latest/checkpoint.pt")
    (tmp_path / "x.pt").write_bytes(b"PK nonsense")
    result = call("export/to_onnx.py", "--checkpoint", "x.pt", cwd=tmp_path)
    assert_one_line_error(result, "x.pt is not a whole checkpoint")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_full_disk_leaves_the_old_file(run_copy, monkeypatch):
    before = (run_copy / "model.onnx").read_bytes()

    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_onnx, "write_onnx", full)
    with pytest.raises(parity.ExportError, match="No space left"):
        to_onnx.main(["--checkpoint", str(run_copy / "checkpoint.pt")])
    assert (run_copy / "model.onnx").read_bytes() == before
    assert len(list(run_copy.iterdir())) == 4
