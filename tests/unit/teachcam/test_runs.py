"""runs/latest, with symbolic links and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from teachcam.runs import latest_run, resolve_latest, set_latest_run


@pytest.mark.parametrize("links", [True, False])
def test_the_latest_run_is_found(links, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_, **__: (_ for _ in ()).throw(OSError("privilege not held")))
    for name in ("first", "second"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "model.onnx").write_text(name)
        set_latest_run(run)
        assert (latest_run() / "model.onnx").read_text() == name
        assert resolve_latest(Path("runs/latest/model.onnx")).read_text() == name
    assert Path("runs/latest").is_symlink() == links
    assert resolve_latest(Path("elsewhere/model.onnx")) == Path("elsewhere/model.onnx")
