"""Clutter is drawn once, whoever asks for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from teachcam import clutter


def test_threads_that_ask_at_once_draw_it_once(monkeypatch):
    clutter._draw_all.cache_clear()
    drawn, draw = [], clutter.draw_clutter
    monkeypatch.setattr(clutter, "NUM_CLUTTER_IMAGES", 3)
    monkeypatch.setattr(clutter, "draw_clutter", lambda rng: drawn.append(draw(rng)) or drawn[-1])
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: clutter.clutter_images(), range(8)))
    clutter._draw_all.cache_clear()
    assert len(drawn) == 3
    assert all(result is results[0] for result in results)
