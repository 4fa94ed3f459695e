"""Check a dataset before training on it.

    python collect/check.py
    python collect/check.py --html check.html
    python collect/check.py --fix           # moves unusable images to data/.rejected/
    python collect/check.py --undo          # moves them back
    python collect/check.py --place kitchen --sessions "20261126T0413*"     # those were recorded in one place

The exit code is 2 if training on the dataset would go wrong.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, see run_script
    from teachcam.commands import run_script

    run_script("check")

import argparse
import base64
import fnmatch
import html
import json
import logging
from dataclasses import asdict
from pathlib import Path

from teachcam import cli
from teachcam.collect.dataset import REJECTED, Sample, list_samples, move_to_rejected, set_place
from teachcam.collect.inspection import Finding, Inspection, inspect_samples, join_names, thumbnail
from teachcam.collect.left_out import describe_left_out, describe_similar_labels, describe_unportable_labels
from teachcam.collect.names import normalize_text
from teachcam.collect.session_lines import describe_damage, describe_unlisted
from teachcam.errors import DatasetError
from teachcam.files import expand, naming, write_atomic
from teachcam.images import encode_jpeg
from teachcam.json_lines import scan_json_lines
from teachcam.labels import warnings_of_labels

logger = logging.getLogger("teachcam.collect.check")  # not __name__, which is __main__ for a command

FIXABLE = ("same image", "unreadable", "near-duplicate")  # kinds of findings whose images --fix moves away
MAX_ADVICE = 6  # lines printed
MAX_THUMBNAILS = 12  # for each finding
MAX_SCENES = 12  # printed


def main(argv: list[str] | None = None) -> int:
    """Print a table of the labels, the findings, and what to record next."""
    options = _parse(argv)
    if options.undo:
        print(f"{undo(options.data)} files moved back")
        return 0
    samples = list_samples(options.data)
    if options.place is not None:
        sessions = matching_sessions(samples, options.sessions)
        set_place(options.data, sessions, options.place)
        print(f"{len(sessions)} session{'s' * (len(sessions) > 1)} of {options.place or 'no named place'}")
        return 0
    inspection = inspect_samples(samples)
    unused = describe_left_out(options.data)
    inspection.findings += [Finding("left out", line) for line in unused]
    names = describe_similar_labels(options.data) + describe_unportable_labels(options.data)
    inspection.findings += [Finding("names", line) for line in names]
    damage = filter(None, [describe_damage(options.data), *describe_unlisted(options.data, inspection.scenes)])
    inspection.findings += [Finding("sessions.jsonl", line) for line in damage]
    inspection.findings += [Finding("label", line) for line in warnings_of_labels(inspection.labels)]
    _print_inspection(inspection)
    if options.html:
        page = to_html(options.data, samples, inspection)
        try:
            write_atomic(options.html, page.encode(errors="replace"))  # a name may hold bytes that are not text
        except OSError as error:
            raise DatasetError(f"can't write {options.html}: {error.strerror}") from None
        print(f"report with images: {options.html}")
    if options.fix:
        print(f"{fix(options.data, inspection)} files moved to {options.data / REJECTED}; --undo moves them back")
        return 0
    if inspection.errors:
        raise DatasetError(f"not ready to train on: {'; '.join(finding.text for finding in inspection.errors)}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(
        description=__doc__.splitlines()[0], epilog="Exit code 2 means that training on the dataset would be wrong."
    )
    parser.add_argument("--data", type=expand, default=Path("data"), metavar="DIR", help="the dataset (default: data)")
    parser.add_argument("--html", type=expand, metavar="FILE", help="write a report with images, as one HTML file")
    parser.add_argument(
        "--fix", action="store_true", help=f"move files with these faults to DATA/{REJECTED}/: {', '.join(FIXABLE)}"
    )
    parser.add_argument("--undo", action="store_true", help="move back the files that --fix moved, and exit")
    parser.add_argument("--place", metavar="NAME", help="write this place into the sessions of --sessions, and exit")
    parser.add_argument(
        "--sessions", nargs="+", metavar="SESSION", help="with --place: names of sessions or places; * stands for any"
    )
    options = parser.parse_args(argv)
    if (options.place is None) != (options.sessions is None):
        parser.error("give both --place NAME and --sessions SESSION")
    return options


def matching_sessions(samples: list[Sample], patterns: list[str]) -> list[str]:
    """Return the sessions whose name or place matches one of the patterns. Raises DatasetError if one matches none."""
    places = {sample.session: sample.scene for sample in samples}
    found: set[str] = set()
    for pattern in map(normalize_text, patterns):
        matching = {
            session
            for session, place in places.items()
            if pattern in (session, place) or fnmatch.filter((session, place), pattern)
        }
        if not matching:
            raise DatasetError(
                f"--sessions: no session is called {pattern!r}; without options, this command lists them"
            )
        found |= matching
    return sorted(found)


def _print_inspection(inspection: Inspection) -> None:
    print(table(inspection))
    print()
    print(scene_table(inspection))
    for finding in inspection.findings:
        print(f"{'error' if finding.error else 'warning'}: {finding.text}")
        for sample in finding.samples[:3]:
            print(f"    {sample.path}")
        if len(finding.samples) > 3:
            print(f"    and {len(finding.samples) - 3} more")
    for advice in inspection.advice[:MAX_ADVICE]:
        print(f"next: {advice}")


def table(inspection: Inspection) -> str:
    """Return the numbers of each label as lines of text."""
    names = ("images", "sessions", "scenes", "blurred", "dark", "bright", "near_duplicates", "unreadable")
    width = max(len(label) for label in [*inspection.labels, "label"]) + 2
    lines = ["label".ljust(width) + "".join(name.replace("_", "-").rjust(len(name) + 2) for name in names)]
    for label, summary in inspection.labels.items():
        numbers = asdict(summary)
        lines.append(label.ljust(width) + "".join(str(numbers[name]).rjust(len(name) + 2) for name in names))
    return "\n".join(lines)


def scene_table(inspection: Inspection, max_scenes: int = MAX_SCENES) -> str:
    """Return the sessions, the number of images and the labels of each scene as lines of text."""
    lines = []
    for scene, samples in list(inspection.scenes.items())[:max_scenes]:
        sessions = list(dict.fromkeys(sample.session for sample in samples))
        names = f" ({join_names(sessions)})" if sessions != [scene] else ""
        labels = ", ".join(sorted({sample.label for sample in samples}))
        lines.append(f"scene {scene}{names}: {len(samples)} images of {labels}")
    if len(inspection.scenes) > max_scenes:
        lines.append(f"and {len(inspection.scenes) - max_scenes} more scenes: --html shows all")
    return "\n".join(lines)


def fix(data: Path, inspection: Inspection) -> int:
    """Move unusable images to data/.rejected/.

    The list of moves is written first, so that `undo` works even if this is interrupted.

    Args:
        data: The folder of the dataset.
        inspection: Inspection of this dataset.

    Returns:
        How many files were moved.
    """
    reasons = {
        sample.path: finding.kind
        for finding in inspection.findings
        if finding.kind in FIXABLE
        for sample in finding.samples
    }
    (data / REJECTED).mkdir(exist_ok=True)
    with naming(_moves_file(data)), _moves_file(data).open("a", encoding="utf-8") as file:
        for path, reason in reasons.items():
            file.write(json.dumps({"file": str(path.relative_to(data)), "why": reason}, ensure_ascii=False) + "\n")
    for path in reasons:
        move_to_rejected(data, path)
    return len(reasons)


def undo(data: Path) -> int:
    """Move back the files that `fix` moved and that are still in data/.rejected/. Returns how many there were."""
    moves = _moves_file(data)
    if not moves.is_file():
        raise DatasetError(f"nothing to move back: there is no {moves}")
    num_files = 0
    lines = scan_json_lines(moves, "file")
    if lines.error:
        raise DatasetError(f"can't read {moves}: {lines.error}")
    for line in lines.objects:
        name = Path(str(line.get("file")))
        source, target = data / REJECTED / name, data / name
        if name.is_absolute() or ".." in name.parts or target.exists() or not source.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        source.replace(target)
        num_files += 1
    if lines.damaged:
        logger.warning(f"{moves} is damaged: files that are still in {moves.parent} can be moved back by hand")
    else:
        moves.unlink()
    return num_files


def _moves_file(data: Path) -> Path:
    return data / REJECTED / "moves.jsonl"


def to_html(data: Path, samples: list[Sample], inspection: Inspection) -> str:
    """Return one HTML page without links: the table, the findings, and the scenes with their sessions."""
    rows = "".join(f"<pre>{html.escape(table(inspection))}</pre>")
    advice = "".join(f"<li>{html.escape(text)}" for text in inspection.advice)
    findings = "".join(
        f"<h3>{'error' if finding.error else 'warning'}: {html.escape(finding.text)}</h3>"
        + "".join(map(_figure, finding.samples[:MAX_THUMBNAILS]))
        for finding in inspection.findings
    )
    num_sessions = len({(sample.label, sample.session) for sample in samples})
    scenes = ""
    for scene, of_scene in inspection.scenes.items():
        first = {(sample.session, sample.label): sample for sample in reversed(of_scene)}
        scenes += f"<h3>{html.escape(scene)}</h3>" + "".join(_figure(sample) for _, sample in sorted(first.items()))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>dataset {html.escape(str(data))}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
pre {{ overflow-x: auto }} figure {{ display: inline-block; width: 120px; margin: 0 .6rem .6rem 0; font-size: .75rem;
vertical-align: top; overflow-wrap: anywhere }} img {{ display: block; border-radius: .3rem }}
</style>
<h1>{html.escape(str(data))}: {len(samples)} files, {num_sessions} recordings</h1>{rows}
<h2>What to do next</h2><ul>{advice or "<li>Nothing: train on it."}</ul>
<h2>What is wrong</h2>{findings or "<p>Nothing.</p>"}
<h2>The scenes: the first image of every session</h2>{scenes}</html>
"""


def _figure(sample: Sample) -> str:
    image = thumbnail(sample.path)
    img = ""
    if image is not None:
        img = f'<img src="data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image)).decode()}" alt="">'
    return f"<figure>{img}{html.escape(f'{sample.label}/{sample.path.name}')}</figure>"
