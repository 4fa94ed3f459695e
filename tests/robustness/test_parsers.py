"""What users, files and other programs may write: it is read, or refused with one of the project's own errors."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from datetime import datetime, timedelta, timezone

import numpy as np
from conftest import PATIENCE, assert_one_line_error, call_here
from hypothesis import assume, example, given
from hypothesis import strategies as st

from robustness.conftest import assert_one_line
from teachcam.collect import dataset
from teachcam.collect.dataset import Sample, Session, check_label, check_place, last_place, list_samples, read_places
from teachcam.collect.gstreamer import csi_pipeline
from teachcam.collect.network_camera import hide_secrets
from teachcam.collect.scenes import find_scenes
from teachcam.collect.sources import CAMERA_DEFAULTS, is_live, source_path, usb_device
from teachcam.collect.synthetic import SyntheticCamera
from teachcam.contract import Contract, TrainingInfo
from teachcam.errors import ContractError, DatasetError, TrainingError, UserError
from teachcam.live.sinks.actions import Actions
from teachcam.live.sinks.mqtt_address import broker_address
from teachcam.live.sinks.webhook import receiver_url
from teachcam.live.web.auth import is_loopback, parse_address
from teachcam.runs import read_epochs
from teachcam.train.data.file_lists import read_lists
from teachcam.train.run import load_interrupted_run
from teachcam.train.run_config import RunConfig

DEEP = "[" * 100_000  # json's own reader gives up with a RecursionError
NASTY = [
    "",
    " ",
    "-",
    "--",
    "..",
    "/",
    "\\",
    "~",
    "~nobody/x",
    "%",
    "%00",
    "\x1b[2J",
    "٣",
    "ﬁ",
    "a\u0301",
    "\u202e",
    "x" * 300,
]
NUMBERS = ["0", "-1", "1e999", "nan", "inf", "1_0", "9" * 5000, "0x10", " 1", "1.5", "①"]

text = st.text(max_size=40) | st.sampled_from(NASTY + NUMBERS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)


def mutated(valid: object):
    """Return a strategy for JSON objects in which one value of a valid one is another, or is missing."""

    def change(drawn: tuple) -> object:
        path, value, drop = drawn
        content = json.loads(json.dumps(valid))
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        if drop:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        return content

    return st.tuples(st.sampled_from(list(_paths(valid))), json_values, st.booleans()).map(change)


def _paths(content: object, before: tuple = ()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from _paths(value, (*before, key))


# Names


@given(text)
def test_a_label_is_a_folder_or_an_error(tmp_path_factory, count, name):
    count("inputs")
    try:
        label = check_label(name)
    except DatasetError as error:
        assert_one_line(error)
        return
    data = tmp_path_factory.mktemp("data")
    try:
        Session(data, label).save(np.zeros((8, 8, 3), np.uint8))
    except DatasetError as error:  # more bytes than a file system allows for a name
        assert_one_line(error)
        return
    (sample,) = list_samples(data)
    assert sample.label == label
    assert sample.path.parent.parent == data
    assert check_label(label) == label


@given(text)
def test_a_place_is_found_again(tmp_path_factory, count, name):
    count("inputs")
    try:
        place = check_place(name)
    except DatasetError as error:
        assert_one_line(error)
        return
    data = tmp_path_factory.mktemp("data")
    dataset.set_place(data, ["s"], name)
    assert read_places(data).get("s", "") == place


# sessions.jsonl


@given(st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=8))
@example([DEEP.encode(), b'{"session": "s", "place": "p"}'])
def test_damaged_lines_about_sessions_are_left_out(tmp_path_factory, count, lines):
    count("inputs")
    data = tmp_path_factory.mktemp("data")
    (data / dataset.SESSIONS_FILE).write_bytes(b"\n".join(lines) + b'\n{"session": "last", "place": "kitchen"}\n')
    assert read_places(data)["last"] == "kitchen"
    assert isinstance(last_place(data), str)


@given(st.binary(max_size=200))
def test_a_line_that_was_cut_off_does_not_damage_the_next(tmp_path_factory, count, rest):
    count("faults")
    data = tmp_path_factory.mktemp("data")
    (data / dataset.SESSIONS_FILE).write_bytes(rest)
    dataset.set_place(data, ["s"], "kitchen")
    assert read_places(data)["s"] == "kitchen"


@given(st.integers(-10, 10), st.integers(0, 86400), st.integers(-1439, 1439))
def test_a_place_is_remembered_whatever_the_clock_says(tmp_path_factory, count, days, seconds, zone):
    count("inputs")
    data = tmp_path_factory.mktemp("data")
    recorded = datetime.now(timezone(timedelta(minutes=zone))) + timedelta(days=days, seconds=seconds)
    line = {"session": "s", "place": "kitchen", "time": recorded.strftime(dataset.TIME_FORMAT)}
    dataset.append_line(data, line)
    age = abs(recorded.timestamp() - time.time())
    assume(abs(age - dataset.PLACE_REMEMBERED) > PATIENCE)  # the border moves while the test runs
    far = age > dataset.PLACE_REMEMBERED
    assert last_place(data) == ("" if far else "kitchen")


@given(st.lists(st.from_regex(r"[0-9]{8}T[0-9]{6}", fullmatch=True), min_size=1, max_size=4, unique=True))
@example(["00010101T000000", "99991231T235959", "00000000T000000"])
def test_sessions_of_any_time_have_scenes(count, names):
    count("inputs")
    samples = [Sample(dataset.Path(f"a/{name}_0.jpg"), "a", name) for name in names]
    scenes = find_scenes(samples, np.zeros((len(samples), 24 * 32 * 3), np.float32))
    assert set(scenes.scene_of) == set(names)


# Contract, options and logs of a run

CONTRACT = json.loads(Contract(("a", "b"), (32, 32), trained_on=TrainingInfo("squeezenet1_1")).to_json())


@given(st.text(max_size=100) | json_values.map(json.dumps) | mutated(CONTRACT).map(json.dumps))
@example(DEEP)
@example(json.dumps({**CONTRACT, "input_size": [True, 32]}))
@example(json.dumps({**CONTRACT, "labels": ["\ud800", "b"]}))
@example(json.dumps({**CONTRACT, "temperature": float("nan")}))
def test_a_contract_is_complete_or_refused(count, content):
    count("inputs")
    try:
        contract = Contract.from_json(content)
    except ContractError as error:
        assert_one_line(error)
        return
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert all(label.encode() is not None for label in contract.labels)


RUN_CONFIG = RunConfig(strategy="head", overrides={"epochs": 2}).to_json()


@given(json_values | mutated({"config": RUN_CONFIG, "images": "x", "split": "y"}))
@example({"config": {**RUN_CONFIG, "overrides": {"progressive_resize": 5}}})
@example({"config": {**RUN_CONFIG, "overrides": 5}})
@example({"config": {**RUN_CONFIG, "backbone": "timm:"}})
def test_the_options_of_an_interrupted_run_are_valid_or_refused(tmp_path_factory, count, saved):
    count("inputs")
    run = tmp_path_factory.mktemp("run")
    (run / ".state").mkdir()
    (run / ".state" / "config.json").write_text(json.dumps(saved))
    with contextlib.suppress(TrainingError):
        assert load_interrupted_run(run).out == run


@given(st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=8))
@example([DEEP.encode()])
def test_damaged_lines_about_epochs_are_left_out(tmp_path_factory, count, lines):
    count("inputs")
    run = tmp_path_factory.mktemp("run")
    epoch = {"training": "t", "epoch": 1}
    (run / "epochs.jsonl").write_bytes(b"\n".join(lines) + b"\n" + json.dumps(epoch).encode() + b'\n{"training": "t')
    assert epoch in read_epochs(run)


# File lists and recipes


@given(st.lists(st.tuples(text, text).map(" ".join) | text, max_size=6))
@example(["a.jpg " + "9" * 5000])
@example(["\0.jpg 1"])
@example(["x" * 5000 + " 1"])
def test_a_file_list_is_read_or_a_line_is_named(tmp_path_factory, count, lines):
    count("inputs")
    data = tmp_path_factory.mktemp("data")
    (data / "a.jpg").write_bytes(b"x")
    listed = data / "list.txt"
    listed.write_bytes("\n".join(["a.jpg 0", *lines]).encode(errors="surrogatepass"))
    try:
        samples, _, labels = read_lists(listed, None, data)
    except DatasetError as error:
        assert_one_line(error)
    else:
        assert labels
        assert samples


@given(st.binary(max_size=100) | text.map(lambda value: value.encode(errors="replace")))
@example(b"--epochs '")
@example(b"@x.args")
@example(b"--data " + b"x" * 5000)
def test_a_recipe_is_read_or_refused(tmp_path_factory, count, content):
    assume(b"-h" not in content)
    count("inputs")
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "x.args").write_bytes(content)
    assert_one_line_error(call_here("train/finetune.py", "@x.args", cwd=folder))  # at the latest: there is no dataset


# Addresses


@given(
    text, text, st.sampled_from(["", "http://", "https://", "rtsp://", "mqtt://", "file://", "gst:", "csi:", "x://"])
)
@example("[", "", "file://")
@example("[", "", "http://")
@example("user:pass@[::1", "", "rtsp://")
@example("a\0b", "", "")
def test_any_name_of_a_camera_is_a_name(count, first, second, scheme):
    count("inputs")
    name = scheme + first + second
    assert isinstance(is_live(name), bool)
    assert source_path(name) is not None
    usb_device(name)
    secret = f"{scheme or 'http://'}user:kr1ptonite@{first}".replace("csi:", "rtsp://").replace("gst:", "rtsp://")
    assert "kr1ptonite" not in hide_secrets(secret)
    with contextlib.suppress(UserError):
        csi_pipeline(f"csi:{first}", CAMERA_DEFAULTS)


@given(
    text, st.sampled_from(["seed", "fps", "size", "numbered", "other"]), text | st.sampled_from(["2x2", "1x1", "1e9x1"])
)
@example("palm", "fps", "1e-320")
@example("", "fps", "nan")
@example("", "size", "99999999x99999999")
@example("", "seed", "-1")
@example("", "seed", "9" * 5000)
def test_options_of_the_synthetic_camera(count, label, key, value):
    assume(key != "size" or not value.isascii() or len(value) < 4)  # not too large to draw
    count("inputs")
    with contextlib.suppress(UserError):
        SyntheticCamera(f"{label}?{key}={value}").close()


@given(text, text)
@example("mqtt://a/" + "x" * 2000, "")
@example("mqtt://[", "")
@example("http://[", "")
@example("http://h:99999", "")
@example("mqtt://h:x/t", "")
@example("mqtt://" + "a" * 300 + "/t", "")
@example("mqtt://h/\ud800", "")
def test_addresses_are_valid_or_refused(count, first, second):
    for address in (first, *(scheme + first + "/" + second for scheme in ("mqtt://", "http://"))):
        count("inputs")
        with contextlib.suppress(UserError):
            broker = broker_address(address)
            assert broker.host
            assert broker.topic
        with contextlib.suppress(UserError):
            assert receiver_url(address) == address
        with contextlib.suppress(argparse.ArgumentTypeError):
            assert 0 <= parse_address(address)[1] < 65536
        assert isinstance(is_loopback(address), bool)


@given(st.lists(st.tuples(text, text).map("=".join) | text, max_size=3), st.booleans())
@example(["a='"], False)
@example(["a=\0"], False)
@example(["a=" + "x" * 5000], False)
def test_commands_of_labels_are_valid_or_refused(count, commands, shell):
    count("inputs")
    with contextlib.suppress(UserError):
        Actions(commands, ("a", "b"), shell=shell)
