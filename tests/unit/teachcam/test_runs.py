"""runs/latest, with symbolic links and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from teachcam.live.model_watcher import describe_file
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
        assert describe_file(latest_run() / "model.onnx").startswith(f"{Path('runs', name, 'model.onnx')} (written 20")
    assert Path("runs/latest").is_symlink() == links
    assert resolve_latest(Path("elsewhere/model.onnx")) == Path("elsewhere/model.onnx")


@pytest.mark.parametrize("links", [True, False])
def test_a_newest_run_outside_runs_is_said(links, tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        folder.mkdir()
        (folder / "model.onnx").write_text("")
    monkeypatch.chdir(project)
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_, **__: (_ for _ in ()).throw(OSError("privilege not held")))
    os.utime(elsewhere / "model.onnx", (86400 * 365, 86400 * 365))
    set_latest_run(elsewhere)
    described = describe_file(latest_run() / "model.onnx")
    assert described.startswith(f"{elsewhere / 'model.onnx'} (written 197")
    assert described.endswith(", by the newest run, which is not in runs/)")
    assert describe_file(Path("model.onnx")).startswith("model.onnx (written 20")
    assert "newest" not in describe_file(Path("model.onnx"))
