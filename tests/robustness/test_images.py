"""Images of every shape, type and size: classified and saved, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from teachcam.collect.dataset import Sample, Session
from teachcam.collect.inspection import Measurements
from teachcam.contract import Contract
from teachcam.errors import UserError
from teachcam.images import decode_image, encode_jpeg
from teachcam.live.classifier import Classifier
from teachcam.preprocessing import preprocess, resize, shrink

sizes = st.integers(1, 700) | st.sampled_from([1, 2, 223, 224, 225, 448, 4000])
LAYOUTS = {
    "plain": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": lambda image: image.swapaxes(0, 1),
    "RGB": lambda image: image[:, :, ::-1],
    "part": lambda image: np.pad(image, ((3, 2), (1, 5), (0, 0)))[3:-2, 1:-5],
    "every second pixel": lambda image: np.repeat(np.repeat(image, 2, 0), 2, 1)[::2, ::2],
    "read-only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
    "Fortran": np.asfortranarray,
}


@pytest.fixture(scope="module")
def classifier(trained):
    return Classifier(trained / "model.onnx")


@settings(max_examples=settings.default.max_examples // 3)  # each is run through the model twice
@given(sizes, sizes, st.sampled_from(list(LAYOUTS)), st.integers(0, 2**32 - 1))
@example(1, 1, "plain", 0)
@example(1, 20000, "plain", 0)
@example(20000, 1, "part", 0)
def test_every_size_and_layout_gives_what_a_plain_copy_gives(classifier, count, height, width, layout, seed):
    count("inputs")
    image = LAYOUTS[layout](np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    before = image.copy()
    prediction = classifier.classify(image)
    assert prediction == classifier.classify(np.ascontiguousarray(image))
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert np.array_equal(image, before)
    Measurements().add(Sample(None, "a", "x"), image)
    assert decode_image(encode_jpeg(image)).shape == image.shape


@given(sizes, sizes, st.integers(8, 300), st.integers(8, 300), st.sampled_from(["RGB", "BGR", "GRAY"]))
def test_every_image_becomes_a_models_input(count, height, width, to_height, to_width, color_order):
    count("inputs")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    contract = Contract(("a", "b"), (to_height, to_width), color_order)
    model_input = preprocess(image, contract)
    assert (model_input.shape, model_input.dtype) == ((to_height, to_width, 3), np.uint8)
    assert np.array_equal(
        resize(shrink(image, (to_height, to_width)), (to_height, to_width)), resize(image, (to_height, to_width))
    )


WRONG = {
    "gray": np.zeros((9, 9), np.uint8),
    "one channel": np.zeros((9, 9, 1), np.uint8),
    "alpha": np.zeros((9, 9, 4), np.uint8),
    "a batch": np.zeros((1, 9, 9, 3), np.uint8),
    "channels first": np.zeros((3, 9, 9), np.uint8),
    "float": np.zeros((9, 9, 3), np.float32),
    "double": np.zeros((9, 9, 3)),
    "16 bits": np.zeros((9, 9, 3), np.uint16),
    "signed": np.zeros((9, 9, 3), np.int8),
    "bool": np.zeros((9, 9, 3), bool),
    "objects": np.zeros((9, 9, 3), object),
    "no rows": np.zeros((0, 9, 3), np.uint8),
    "no columns": np.zeros((9, 0, 3), np.uint8),
    "a number": np.uint8(3),
    "None": None,
    "a list": [[[0, 0, 0]]],
    "a file's name": "image.jpg",
}


@pytest.mark.parametrize("kind", WRONG)
def test_anything_else_is_refused_in_one_line(classifier, tmp_path, count, kind):
    count("faults")
    for use in (classifier.classify, Session(tmp_path, "a").save):
        with pytest.raises(UserError, match=r"an image must be uint8 \[H, W, 3\]") as error:
            use(WRONG[kind])
        assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.*"))


def test_an_image_that_no_jpeg_can_hold_is_an_error_and_leaves_no_file(tmp_path, count):
    count("faults")
    with pytest.raises(UserError, match="70000x1"):
        Session(tmp_path, "a").save(np.zeros((1, 70000, 3), np.uint8))
    assert not list(tmp_path.rglob("*.*"))
