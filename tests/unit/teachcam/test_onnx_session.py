"""The threads of an ONNX Runtime session, and what ONNX Runtime prints while it opens a file."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import onnxruntime
import pytest

from teachcam import onnx_session

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="needs Linux, where threads have affinities"
)


@pytest.mark.parametrize(
    ("allowed", "workers", "affinities"),
    [
        ({0, 1, 2, 3}, [{2, 3}], "3,4"),  # two cores of two hardware threads each
        ({1, 2, 3}, [{2, 3}], "3,4"),
        ({0, 2}, [{2}], "3"),
        ({2, 3, 4, 5}, [{4, 5}], "5,6"),
        ({0, 1}, [], None),  # one core: the caller's
    ],
)
def test_there_is_one_tied_thread_for_every_further_core(allowed, workers, affinities, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(onnx_session, "_hardware_threads", lambda cpu: {cpu // 2 * 2, cpu // 2 * 2 + 1})
    assert onnx_session._worker_cores() == workers
    options = onnx_session._session_options()
    assert options.intra_op_num_threads == 1 + len(workers)
    if affinities is None:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.intra_op_thread_affinities")
    else:
        assert options.get_session_config_entry("session.intra_op_thread_affinities") == affinities


def test_hardware_threads_are_read_from_linux_lists(monkeypatch):
    for text, cpus in (("0,4\n", {0, 4}), ("2-3\n", {2, 3}), ("0-1,8-9\n", {0, 1, 8, 9}), ("", {7})):
        monkeypatch.setattr(onnx_session.Path, "read_text", lambda _, text=text: text)
        assert onnx_session._hardware_threads(7) == cpus


def test_only_what_onnx_runtime_prints_while_a_file_is_opened_is_discarded(capsys):
    modules = (onnxruntime, onnxruntime.capi.onnxruntime_inference_collection)
    with onnx_session._without_prints():
        for module in modules:
            exec("print('EP Error')", vars(module))
        print("the loop")
    for module in modules:
        exec("print('afterwards')", vars(module))
    assert capsys.readouterr().out == "the loop\nafterwards\nafterwards\n"
    assert not any("print" in vars(module) for module in modules)


@pytest.mark.parametrize(
    ("export_info", "expected"),
    [
        ({"precision": "int8", "target": "raspberry", "for_tensorrt": False}, False),
        ({"precision": "int8", "target": "jetpack5", "for_tensorrt": True}, True),
        ({"precision": "fp16", "target": "jetpack5", "for_tensorrt": True}, False),
        ({"precision": "int8", "target": "desktop"}, False),  # files of older versions
        ({"precision": "int8", "target": "jetpack5"}, True),
        ([], False),
    ],
)
def test_int8_is_computed_as_the_file_was_made(export_info, expected):
    entries = SimpleNamespace(custom_metadata_map={"teachcam.export": json.dumps(export_info)})
    assert onnx_session._is_int8_for_tensorrt(SimpleNamespace(get_modelmeta=lambda: entries)) is expected
