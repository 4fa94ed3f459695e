"""Files with flipped bits, missing ends and random bytes: read right, or refused with an error of the project."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

from robustness.conftest import assert_one_line
from teachcam.collect.dataset import Sample
from teachcam.collect.inspection import Measurements
from teachcam.collect.synthetic import render
from teachcam.errors import UnreadableImage, UserError
from teachcam.feature_store import FeatureStore
from teachcam.images import decode_file, encode_jpeg
from teachcam.live.tuning import Timing, Tuning, read_tuning
from teachcam.self_check import SelfCheck
from teachcam.train.engine.resume import TrainingState
from teachcam.train.model.checkpoint import load_checkpoint

IMAGE = render("palm", 0, 1, 64, 48)[0]
ALPHA = np.dstack([IMAGE, IMAGE[:, :, 0]])
ENCODED = [
    encode_jpeg(IMAGE),
    *(cv2.imencode(suffix, ALPHA)[1].tobytes() for suffix in (".png", ".webp", ".tiff", ".bmp")),
    *(cv2.imencode(suffix, IMAGE[:, :, 0])[1].tobytes() for suffix in (".png", ".pgm", ".tiff")),
]
damage = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "zero", "drop"]), st.integers(0, 2**20), st.integers(0, 255)),
    min_size=1,
    max_size=5,
)


def damaged(content: bytes, how: list[tuple[str, int, int]]) -> bytes:
    """Return the content with flipped bits, without its end, with bytes inserted, zeroed or removed."""
    changed = bytearray(content)
    for kind, place, number in how:
        at = place % max(1, len(changed))
        if kind == "flip" and changed:
            changed[at] ^= 1 << number % 8
        elif kind == "cut":
            del changed[at:]
        elif kind == "insert":
            changed[at:at] = bytes([number]) * (1 + number % 9)
        elif kind == "zero":
            changed[at : at + 16] = bytes(len(changed[at : at + 16]))
        elif kind == "drop":
            del changed[at : at + 1 + number % 16]
    return bytes(changed)


def random_damage(rng: random.Random) -> list[tuple[str, int, int]]:
    kinds = ["flip", "cut", "insert", "zero", "drop"]
    return [(rng.choice(kinds), rng.randrange(2**26), rng.randrange(256)) for _ in range(rng.randint(1, 4))]


@given(st.sampled_from(ENCODED), damage)
def test_a_damaged_image_is_an_image_or_unreadable(count, content, how):
    count("faults")
    try:
        image = decode_file(damaged(content, how), "x.jpg")
    except UnreadableImage as error:
        assert_one_line(error)
        return
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    Measurements().add(Sample(Path("a/x_1.jpg"), "a", "x"), image)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"P5"]),
)
def test_random_bytes_are_unreadable_or_an_image(count, content, begin):
    count("inputs")
    with contextlib.suppress(UnreadableImage):
        assert decode_file(begin + content, "x.jpg").shape[2] == 3


@given(damage)
def test_a_damaged_feature_store_gives_the_right_features_or_none(tmp_path_factory, count, how):
    count("faults")
    path, dtype = tmp_path_factory.mktemp("store") / "features.sqlite", np.dtype((np.float32, 1280))
    rng = np.random.default_rng(0)
    rows = {bytes([number]) * 32: rng.normal(size=1280).astype(np.float32) for number in range(4)}
    (last,) = list(rows)[3:]
    with closing(FeatureStore(path, "network", dtype)) as store:
        store.put({key: row for key, row in rows.items() if key != last})
    path.write_bytes(damaged(path.read_bytes(), how))
    for is_new in (False, True):
        with closing(FeatureStore(path, "network", dtype)) as store:
            if not is_new:
                store.put({last: rows[last]})
            for key, row in rows.items():
                found = store.get(key)
                assert found is None or np.array_equal(found, row)
            assert store.get(last) is not None  # what is added to a damaged file is found again


SELF_CHECK = SelfCheck([encode_jpeg(IMAGE)], np.array([[0.25, 0.75]]), "fp32", "a processor", "1.2.3").to_json()


@given(damage)
def test_a_damaged_self_check_is_complete_or_refused(count, how):
    count("faults")
    try:
        check = SelfCheck.from_json(damaged(SELF_CHECK.encode(), how).decode(errors="replace"))
    except UserError:
        return
    assert len(check.images) == len(check.probabilities)
    check.passes(check.probabilities)


@given(damage)
def test_a_damaged_tuning_is_as_if_there_were_none(trained, tmp_path_factory, count, how):
    count("faults")
    from dataclasses import asdict

    from teachcam.live.tuning import _device, _result_file

    model = tmp_path_factory.mktemp("run") / "model.onnx"
    model.symlink_to(trained / "model.onnx")
    tuning = Tuning(_device(), (Timing("fp32", "cpu", 1, 2.0, 3.0),))
    result = _result_file(model)
    result.parent.mkdir()
    result.write_bytes(damaged(json.dumps(asdict(tuning)).encode(), how))
    found = read_tuning(model)
    assert found is None or (isinstance(found.idle, Timing) and found.idle.threads >= 0 and found.idle.describe())


@pytest.mark.parametrize("kind", ["checkpoint", "state"])
def test_a_damaged_checkpoint_is_refused(trained, tmp_path, count, rounds, kind):
    """No damage in what is read goes unnoticed: the format has checksums."""
    rng = random.Random(0)
    content = (trained / "checkpoint.pt").read_bytes()
    original = {
        name: tensor for name, tensor in load_checkpoint(trained / "checkpoint.pt").network.state_dict().items()
    }
    path = tmp_path / "checkpoint.pt"
    for _ in range(rounds(25, 1500)):
        count("faults")
        path.write_bytes(damaged(content, random_damage(rng)))
        try:
            if kind == "state":
                saved = TrainingState(tmp_path).read("checkpoint")["weights"]
            else:
                saved = load_checkpoint(path).network.state_dict()
        except UserError as error:
            assert_one_line(error)
            continue
        assert all(torch.equal(tensor, original[name]) for name, tensor in saved.items())


OPEN_MODELS = """
import sys
from pathlib import Path
from teachcam.errors import UserError
from teachcam.export.metadata import describe
from teachcam.live.classifier import Classifier
for line in sys.stdin:
    path = Path(line.strip())
    said = []
    for function in (lambda: describe(path), lambda: Classifier(path, "cpu").self_check()):
        try:
            function()
            said.append("read")
        except UserError as error:
            said.append("refused" if len(str(error).splitlines()) == 1 else repr(error))
        except Exception as error:
            said.append(repr(error))
    print("; ".join(said), flush=True)
"""


def test_a_damaged_model_is_refused_and_crashes_nothing(trained, tmp_path, count, rounds):
    """In another process, because ONNX Runtime is native code and may crash."""
    rng, content = random.Random(1), (trained / "model.onnx").read_bytes()
    metadata = content.rfind(b"teachcam.contract") - 200
    path = tmp_path / "model.onnx"
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_MODELS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        for number in range(rounds(30, 1000)):
            count("faults")
            how = random_damage(rng)
            if number % 2:  # in what is said about the model: its contract, its export, its self check
                how = [(kind, metadata + place % (len(content) - metadata), byte) for kind, place, byte in how]
            path.write_bytes(damaged(content, how))
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            said = process.stdout.readline().strip().split("; ")
            assert set(said) <= {"read", "refused"}, (how, said, process.poll())
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
