"""Test on a real NVIDIA GPU: predictions, training, tuning and the commands. Skipped where there is none."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import PATIENCE, ROOT, call

from teachcam.collect.dataset import list_samples
from teachcam.contract import Contract
from teachcam.export.conversion import ExportConfig
from teachcam.export.from_torch.exporter import export
from teachcam.images import read_image
from teachcam.live import tuning
from teachcam.live.classifier import Classifier
from teachcam.onnx_session import open_session
from teachcam.teach.backbone import Backbone
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.model.backbones import build_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch for it")
needs_onnx_runtime = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs ONNX Runtime for a GPU"
)
ROUNDING = {"fp32": 2e-3, "fp16": 2e-2}  # GPUs round fp32 products to TF32: 10 bits of mantissa


@pytest.fixture(scope="module")
def images(dataset) -> list[np.ndarray]:
    return [read_image(sample.path) for sample in list_samples(dataset)]


@needs_onnx_runtime
@pytest.mark.parametrize("precision", ROUNDING)
def test_a_model_predicts_the_same_on_gpu_and_cpu(trained, dataset, images, precision, tmp_path):
    export(trained / "checkpoint.pt", tmp_path / "model.onnx", dataset, ExportConfig(precision=precision))
    on_gpu, on_cpu = (Classifier(tmp_path / "model.onnx", provider) for provider in ("cuda", "cpu"))
    for image in images:
        gpu, cpu = on_gpu.classify(image), on_cpu.classify(image)
        difference = np.abs(np.subtract(list(gpu.probabilities.values()), list(cpu.probabilities.values()))).max()
        assert difference < ROUNDING[precision]
        assert gpu.label == cpu.label or difference > abs(np.diff(sorted(cpu.probabilities.values())[-2:])[0])
    assert on_gpu.self_check() is not None


@needs_onnx_runtime
def test_the_live_loop_chooses_the_gpu_without_torch(trained, tmp_path):
    """PyTorch loads CUDA's libraries. A device has no torch, so the live loop must find them itself."""
    options = ("--camera", "synthetic", "--headless", "--max-frames", 30)
    result = call("live/run.py", "--model", trained / "model.onnx", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\b(cuda|tensorrt)\b", result.stderr), result.stderr


@needs_onnx_runtime
def test_the_doctor_reports_the_gpu(trained, tmp_path):
    result = call("live/doctor.py", "--model", trained / "model.onnx", "--camera", "synthetic", cwd=tmp_path)
    assert re.search(r"cuda: [\d.]+ ms", result.stdout), result.stdout
    assert "cuda: predicts the same as where it was exported" in result.stdout


@needs_onnx_runtime
def test_tuning_measures_the_gpu_in_every_precision(run_copy, dataset):
    tuning.open_model(run_copy / "model.onnx", tune=True, data=dataset)
    measured = {(timing.precision, timing.provider) for timing in tuning.read_tuning(run_copy / "model.onnx").timings}
    assert {("fp32", "cuda"), ("fp16", "cuda"), ("fp32", "cpu")} <= measured


@needs_onnx_runtime
def test_teaching_computes_the_same_features_on_gpu_and_cpu(images, tmp_path):
    gpu, cpu = (Backbone(tmp_path, provider=provider) for provider in ("cuda", "cpu"))
    for image in images[:5]:
        expected = cpu.features(image)
        assert np.linalg.norm(gpu.features(image) - expected) < 0.01 * np.linalg.norm(expected)


@needs_onnx_runtime
def test_two_threads_use_one_model(trained, images):
    from concurrent.futures import ThreadPoolExecutor

    classifier = Classifier(trained / "model.onnx", "cuda")
    expected = [classifier.classify(image).label for image in images]

    def classify(clone: Classifier) -> list[str]:
        return [clone.classify(image).label for image in images]

    with ThreadPoolExecutor(4) as pool:
        for labels in pool.map(classify, [classifier.clone_for_thread() for _ in range(4)]):
            assert labels == expected


def test_features_are_the_same_on_gpu_and_cpu(images):
    torch.manual_seed(0)
    network, _ = build_network("squeezenet1_1", 3)
    contract = Contract(labels=("a", "b", "c"), input_size=(224, 224))
    features = [
        extract_features(network, images, contract, Context(torch.device(device))).cpu() for device in ("cuda", "cpu")
    ]
    assert (features[0] - features[1]).norm() < 0.02 * features[1].norm()  # bfloat16 on the GPU


@pytest.mark.parametrize("strategy", ["ridge", "finetune", "full"])
def test_training_on_the_gpu_gives_a_model_that_any_cpu_runs(dataset, images, strategy, tmp_path):
    options = ("--data", dataset, "--strategy", strategy, "--device", "cuda", "--out", "runs/gpu")
    result = call("train/finetune.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "runs/gpu/metrics.json").read_text())
    assert metrics["device"].startswith("cuda")
    assert call("export/to_onnx.py", cwd=tmp_path).returncode == 0
    classifier = Classifier(tmp_path / "runs/gpu/model.onnx", "cpu")
    samples = list_samples(dataset)
    right = [classifier.classify(image).label == sample.label for image, sample in zip(images, samples, strict=True)]
    assert np.mean(right) > 0.6  # three labels


def test_torchrun_trains_on_the_gpu_with_nccl(dataset, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", str(ROOT / "train/finetune.py")]
    options = ["--data", str(dataset), "--strategy", "head", "--epochs", "2", "--out", "runs/nccl"]
    result = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr


def test_training_goes_on_with_less_memory(images):
    """Take away the GPU's memory: the batch is divided, and the features stay the same."""
    network, _ = build_network("resnet18", 3)
    contract, said = Contract(labels=("a", "b", "c"), input_size=(224, 224)), []
    context = Context(torch.device("cuda"))
    expected = extract_features(network, images[:32], contract, context)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    context.micro_batcher._say = said.append
    try:
        torch.cuda.set_per_process_memory_fraction((before + 60e6) / total)
        features = extract_features(network, images[:32], contract, context)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert said
    assert context.micro_batcher.limit < 32
    assert (features - expected).norm() < 0.02 * expected.norm()


@needs_onnx_runtime
def test_a_full_gpu_is_no_reason_to_fail(trained):
    """Another program holds all of the GPU's memory: the CPU is used."""
    blocks = []
    try:
        for size in (2**30, 2**26, 2**22):
            try:
                while True:
                    blocks.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                pass
        _, provider = open_session(trained / "model.onnx")
        assert provider == "cpu"
    finally:
        blocks.clear()
        torch.cuda.empty_cache()
