"""Make the environments of the peers: a virtual environment or a folder of Node for each, below build/peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from catalog import ENVIRONMENTS, Peer

FOLDER = Path(__file__).resolve().parent


class PeerFailed(Exception):
    """A peer could not be installed, or its job failed. The message is one line."""


def interpreter_of(peer: Peer, build: Path) -> tuple[list[str], Path | None]:
    """Return the command that runs a peer's script, and the folder to run it in. Installs what is missing.

    Raises:
        PeerFailed: It can't be installed.
    """
    if not peer.environment:
        return [sys.executable], None
    folder = build / "environments" / peer.environment
    packages = ENVIRONMENTS[peer.environment]
    stamp = folder / "ready"
    if not stamp.is_file() or stamp.read_text() != " ".join(packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install = _install_node if peer.environment == "node" else _install_python
        install(folder, packages)
        stamp.write_text(" ".join(packages))
    if peer.environment == "node":
        return ["node"], folder
    return [str(_python_of(folder))], None


def version_of(peer: Peer, build: Path) -> str:
    """Return the version of a peer's main package, or an empty text. For teachcam: with the commit, if known."""
    if peer.is_ours:
        commit = _output_of("git", "rev-parse", "--short", "HEAD", folder=FOLDER)
        return f"teachcam {version('teachcam')}" + (f" ({commit})" if commit else "")
    if not peer.environment:
        return ""
    folder, package = build / "environments" / peer.environment, ENVIRONMENTS[peer.environment][0]
    if peer.environment == "node":
        code = f"console.log(require('./node_modules/{package}/package.json').version)"
        return f"{package} {_output_of('node', '-e', code, folder=folder)}"
    code = f"from importlib.metadata import version; print(version('{package}'))"
    return f"{package} {_output_of(str(_python_of(folder)), '-c', code, folder=folder)}"


def _output_of(*command: str, folder: Path) -> str:
    """Return what a command prints to stdout, or an empty text if it can't be run."""
    try:
        return subprocess.run(command, cwd=folder, text=True, capture_output=True).stdout.strip()
    except OSError:
        return ""


def _install_python(folder: Path, packages: tuple[str, ...]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], folder)
    python = _python_of(folder)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([str(python), "-c", script], text=True).strip())
    # PyTorch and what else the project has. What pip installs here comes before it on the path.
    (site / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run([str(python), "-m", "pip", "install", "--quiet", *packages], folder)


def _install_node(folder: Path, packages: tuple[str, ...]) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise PeerFailed("Node is not installed")
    (folder / "package.json").write_text('{"private": true}')
    # The library asks for an old TensorFlow.js; its page loads the newest.
    _run(["npm", "install", "--silent", "--legacy-peer-deps", *packages], folder)


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["no output"]
        raise PeerFailed(f"installation failed: {lines[-1].strip()}")
