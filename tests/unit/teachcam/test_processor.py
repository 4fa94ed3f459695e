"""The share of the free memory that a training may use."""

from __future__ import annotations

from teachcam import processor


def test_a_share_of_what_is_free_up_to_a_limit(monkeypatch):
    assert processor.free_memory() > 2**20
    monkeypatch.setattr(processor, "free_memory", lambda: 4_000_000_000)
    assert processor.share_of_memory(0.25, 2**31) == 1_000_000_000
    assert processor.share_of_memory(0.25, 2**20) == 2**20
    monkeypatch.setattr(processor, "free_memory", lambda: None)
    assert processor.share_of_memory(0.25, 2**31) == 2**31
