"""Check a dataset before training on it.

    python collect/check.py
    python collect/check.py --html check.html
    python collect/check.py --fix           # moves unusable images to data/.rejected/
    python collect/check.py --undo          # moves them back

The exit code is 2 if training on the dataset would go wrong.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
from dataclasses import asdict
from pathlib import Path

from teachcam import cli
from teachcam.collect.dataset import REJECTED, Sample, list_samples, move_to_rejected
from teachcam.collect.inspection import Finding, Inspection, inspect_samples, thumbnail
from teachcam.collect.left_out import describe_left_out, describe_similar_labels
from teachcam.errors import DatasetError
from teachcam.files import expand, write_atomic
from teachcam.images import encode_jpeg

FIXABLE = ("same image", "unreadable", "near-duplicate")  # kinds of findings whose images --fix moves away
MAX_ADVICE = 6  # lines printed
MAX_THUMBNAILS = 12  # for each finding


def main(argv: list[str] | None = None) -> int:
    """Print a table of the labels, the findings, and what to record next."""
    options = _parse(argv)
    if options.undo:
        print(f"{undo(options.data)} files moved back")
        return 0
    samples = list_samples(options.data)
    inspection = inspect_samples(samples)
    unused = describe_left_out(options.data) + describe_similar_labels(options.data)
    inspection.findings += [Finding("left out", line) for line in unused]
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
    return parser.parse_args(argv)


def _print_inspection(inspection: Inspection) -> None:
    print(table(inspection))
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
    names = ("images", "sessions", "backgrounds", "blurred", "dark", "bright", "near_duplicates", "unreadable")
    width = max(len(label) for label in [*inspection.labels, "label"]) + 2
    lines = ["label".ljust(width) + "".join(name.replace("_", "-").rjust(len(name) + 2) for name in names)]
    for label, summary in inspection.labels.items():
        numbers = asdict(summary)
        lines.append(label.ljust(width) + "".join(str(numbers[name]).rjust(len(name) + 2) for name in names))
    return "\n".join(lines)


def fix(data: Path, inspection: Inspection) -> int:
    """Move unusable images to data/.rejected/.

    The list of moves is written first, so that `undo` works even if this is interrupted.

    Args:
        data: The folder of the dataset.
        inspection: Of this dataset.

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
    with _moves_file(data).open("a", encoding="utf-8") as file:
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
    for line in moves.read_text(encoding="utf-8").splitlines():
        name = Path(json.loads(line)["file"])
        source, target = data / REJECTED / name, data / name
        if name.is_absolute() or ".." in name.parts or target.exists() or not source.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        source.replace(target)
        num_files += 1
    moves.unlink()
    return num_files


def _moves_file(data: Path) -> Path:
    return data / REJECTED / "moves.jsonl"


def to_html(data: Path, samples: list[Sample], inspection: Inspection) -> str:
    """Return one HTML page without links: the table, the findings, and the first image of every session."""
    rows = "".join(f"<pre>{html.escape(table(inspection))}</pre>")
    advice = "".join(f"<li>{html.escape(text)}" for text in inspection.advice)
    findings = "".join(
        f"<h3>{'error' if finding.error else 'warning'}: {html.escape(finding.text)}</h3>"
        + "".join(map(_figure, finding.samples[:MAX_THUMBNAILS]))
        for finding in inspection.findings
    )
    first = {(sample.label, sample.session): sample for sample in reversed(samples)}
    sessions = "".join(
        f"<h3>{html.escape(label)}</h3>"
        + "".join(_figure(sample) for (own, _), sample in sorted(first.items()) if own == label)
        for label in inspection.labels
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>dataset {html.escape(str(data))}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
pre {{ overflow-x: auto }} figure {{ display: inline-block; width: 120px; margin: 0 .6rem .6rem 0; font-size: .75rem;
vertical-align: top; overflow-wrap: anywhere }} img {{ display: block; border-radius: .3rem }}
</style>
<h1>{html.escape(str(data))}: {len(samples)} files, {len(first)} recordings</h1>{rows}
<h2>What to do next</h2><ul>{advice or "<li>Nothing: train on it."}</ul>
<h2>What is wrong</h2>{findings or "<p>Nothing.</p>"}
<h2>The first image of every session</h2>{sessions}</html>
"""


def _figure(sample: Sample) -> str:
    image = thumbnail(sample.path)
    img = ""
    if image is not None:
        img = f'<img src="data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image)).decode()}" alt="">'
    return f"<figure>{img}{html.escape(f'{sample.label}/{sample.path.name}')}</figure>"


if __name__ == "__main__":
    cli.run(main)
