"""Find what keeps this machine from running a model, and how to fix it.

    python live/doctor.py
    python live/doctor.py --model model.onnx --json

Exit code 0 if the live loop can run here, 2 if something prevents it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("doctor")

import argparse
import json
from pathlib import Path
from typing import Callable, Iterator

from teachcam import cli
from teachcam.collect.camera_options import add_camera_arguments
from teachcam.files import expand
from teachcam.live.checks import CHECKS, Finding


def main(argv: list[str] | None = None) -> int:
    """Run all checks and print each finding at once."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model",
        type=expand,
        metavar="FILE",
        default=Path("runs/latest/model.onnx"),
        help="ONNX file to test (default: %(default)s)",
    )
    add_camera_arguments(parser, default=None)  # it needs no OpenCV: the doctor must start where that is broken
    parser.add_argument("--json", action="store_true", help="print one JSON list on stdout, for a bug report")
    # Tests put the files of a Jetson here.
    parser.add_argument("--root", type=expand, default=Path("/"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    findings = []
    for check in CHECKS:
        for finding in _findings_of(check, options):
            findings.append(finding)
            if not options.json:
                print(f"{finding.level:<9}{finding.message}", flush=True)
                if finding.fix:
                    print(f"         -> {finding.fix}", flush=True)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    return 2 if any(finding.level == "error" for finding in findings) else 0


def _findings_of(check: Callable, options: argparse.Namespace) -> Iterator[Finding]:
    """Run one check. An exception becomes a finding, so that the other checks still run."""
    try:
        yield from check(options)
    except Exception as error:
        fix = "pip install -r requirements.txt (on a Jetson: see the README)" if isinstance(error, ImportError) else ""
        yield Finding("error", f"The check of the {check.__name__} failed: {cli.first_line(error)}", fix)
