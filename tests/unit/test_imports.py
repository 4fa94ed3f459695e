"""The rules of the layout: stages import earlier ones only, a device needs no torch, Windows has no POSIX modules."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from conftest import PATIENCE, ROOT

STAGES = ("teachcam", "collect", "train", "export", "live", "teach")  # each imports from itself and those before it
# teachcam/__init__.py imports the others by name, when they are first used.
ENTRANCES = {"teachcam", "teachcam.__main__"}
# Python's names of what no module may do while it is imported.
STARTS = ("ctypes.dlopen", "subprocess.Popen", "os.fork", "socket.__new__", "_thread.start_new_thread")


def modules() -> dict[str, Path]:
    """Return every module of the package: its name, and its file."""
    found = {}
    for stage in STAGES:
        for path in (ROOT / stage).rglob("*.py"):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            parts = parts if stage == "teachcam" else ["teachcam", *parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def imports(module: str) -> set[str]:
    """Return the modules of ours that a module imports, those for a type checker only left out."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & set(MODULES)) - {module} - ENTRANCES


def stage(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in STAGES else "teachcam"


def room(module: str) -> str:
    """Return a module's room: a file or a folder of its stage."""
    return ".".join(module.split(".")[: 3 if stage(module) != "teachcam" else 2])


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """Return the longest path of a graph. Fails where it has a circle."""

    @cache
    def chain(name: str) -> tuple[str, ...]:
        assert name not in under_way, f"a circle of imports: {' -> '.join([*under_way, name])}"
        under_way.append(name)
        longest = max((chain(other) for other in sorted(graph[name])), key=len, default=())
        under_way.pop()
        return (name, *longest)

    under_way: list[str] = []
    return list(max((chain(name) for name in sorted(graph)), key=len))


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCES))
def test_a_stage_imports_from_itself_and_earlier_ones(module):
    allowed = STAGES[: STAGES.index(stage(module)) + 1]
    assert {other for other in imports(module) if stage(other) not in allowed} == set()


def test_there_is_no_circle_of_imports():
    longest_chain({module: imports(module) for module in set(MODULES) - ENTRANCES})


def test_train_has_at_most_12_rooms_on_6_levels():
    graph = defaultdict(set)
    for module in MODULES:
        if stage(module) == "train" and module != "teachcam.train":
            graph[room(module)] |= {room(other) for other in imports(module) if stage(other) == "train"}
    graph = {name: others - {name, "teachcam.train"} for name, others in graph.items()}
    assert len(graph) <= 12
    assert len(longest_chain(graph)) <= 6


def import_without(blocked: list[str], names: list[str], setup: str = "") -> None:
    """Import modules in a process of its own where some cannot be imported."""
    code = "\n".join(
        [
            "import importlib, sys",
            *[f"sys.modules[{name!r}] = None" for name in blocked],
            setup,
            *[f"importlib.import_module({name!r})" for name in names],
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_the_rooms_of_a_device_need_no_torch():
    names = [module for module in sorted(MODULES) if stage(module) in ("teachcam", "collect", "live", "teach")]
    import_without(["torch", "torchvision", "teachcam.train"], [name for name in names if name != "teachcam.live.demo"])


@pytest.mark.slow
def test_nothing_needs_posix_at_import():
    """As on Windows: no fcntl, no resource, no os.sched_*, no SIGHUP."""
    setup = "import os, signal\nfor name in [n for n in dir(os) if n.startswith('sched_')]: delattr(os, name)\n"
    setup += "for name in ('SIGHUP', 'SIGKILL', 'SIGALRM'): delattr(signal, name)"
    import_without(["fcntl", "resource", "termios", "pwd", "grp"], sorted(MODULES), setup)


@pytest.mark.slow
def test_nothing_is_opened_or_started_at_import():
    setup = f"""
def refuse(event, _):
    frame = sys._getframe(1) if event in {STARTS} else None
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        path = frame.f_code.co_filename
        assert not path.startswith({str(ROOT)!r}) or "site-packages" in path, f"{{event}} in {{path}}"
        frame = frame.f_back
sys.addaudithook(refuse)
"""
    import_without([], sorted(MODULES), setup)


def test_no_file_beside_a_command_hides_a_package():
    """`python train/finetune.py` puts train/ first on sys.path, where a triton.py would be taken for Triton."""
    packages = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    names = {path.stem for folder in STAGES[1:] for path in (ROOT / folder).iterdir() if path.suffix in (".py", "")}
    assert names & packages - {"__init__"} == set()
