"""Lay out the package for mkdocstrings: `teachcam.collect` lies in `collect/`, not in `teachcam/collect/`.

mkdocstrings reads source files without importing them, so it needs no PyTorch. It looks for a subpackage inside its
package's folder. This hook copies the sources to `build/docs-package/teachcam/` in that shape, before each build.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parent.parent


@event_priority(100)  # before mkdocstrings looks for the folder
def on_config(config):
    """Copy the Python files of every package."""
    package = ROOT / "build" / "docs-package" / "teachcam"
    shutil.rmtree(package, ignore_errors=True)
    python_only = _ignore_other_files
    shutil.copytree(ROOT / "teachcam", package, ignore=python_only)
    for name in ("collect", "train", "export", "live", "teach"):
        shutil.copytree(ROOT / name, package / name, ignore=python_only)
    return config


def _ignore_other_files(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]
