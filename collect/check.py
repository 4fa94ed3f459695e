"""Say how healthy a dataset is, before training on it.

    python collect/check.py
    python collect/check.py --html health.html
    python collect/check.py --fix           # moves what can't be used to data/.rejected/
    python collect/check.py --undo          # moves it back

Ends with 2 if something would make training wrong.
"""

from __future__ import annotations

import base64
import html
import json
from dataclasses import asdict
from pathlib import Path

import cv2

from teachcam import cli
from teachcam.collect.dataset import REJECTED, Sample, move_to_rejected, read_items
from teachcam.collect.inspection import Health, examine, thumbnail
from teachcam.errors import DatasetError
from teachcam.files import write_atomic

FIXED = ("same picture", "unreadable", "near-duplicate")  # what --fix moves away
ADVICE_SHOWN = 6
THUMBNAILS = 12


def main(argv: list[str] | None = None) -> int:
    """Print the table, what is wrong, and what to record next."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="the dataset's folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the same with pictures")
    parser.add_argument("--fix", action="store_true", help=f"move {', '.join(FIXED)} frames to {REJECTED}/")
    parser.add_argument("--undo", action="store_true", help="move back what --fix moved, and end")
    options = parser.parse_args(argv)
    if options.undo:
        print(f"{undo(options.data)} files moved back")
        return 0
    items = read_items(options.data)
    health = examine(items)
    print(table(health))
    for finding in health.findings:
        print(f"{'error' if finding.error else 'warning'}: {finding.text}")
        for item in finding.items[:3]:
            print(f"    {item.path}")
        if len(finding.items) > 3:
            print(f"    and {len(finding.items) - 3} more")
    for advice in health.advice[:ADVICE_SHOWN]:
        print(f"next: {advice}")
    if options.html:
        page = to_html(options.data, items, health)
        try:
            write_atomic(options.html, page.encode())
        except OSError as error:
            raise DatasetError(f"can't write {options.html}: {error.strerror}") from None
        print(f"with pictures: {options.html}")
    if options.fix:
        print(f"{fix(options.data, health)} files moved to {options.data / REJECTED}; --undo moves them back")
        return 0
    if health.errors:
        raise DatasetError(f"not ready to train on: {'; '.join(finding.text for finding in health.errors)}")
    return 0


def table(health: Health) -> str:
    """Return the labels and their figures as lines of text."""
    names = ("frames", "sessions", "backgrounds", "blurred", "dark", "bright", "near_duplicates", "unreadable")
    width = max(len(label) for label in [*health.rows, "label"]) + 2
    lines = ["label".ljust(width) + "".join(name.replace("_", "-").rjust(len(name) + 2) for name in names)]
    for label, row in health.rows.items():
        figures = asdict(row)
        lines.append(label.ljust(width) + "".join(str(figures[name]).rjust(len(name) + 2) for name in names))
    return "\n".join(lines)


def fix(data: Path, health: Health) -> int:
    """Move the frames that can't be used to data/.rejected/, noting each move first; return how many."""
    moved = {item.path: finding.kind for finding in health.findings if finding.kind in FIXED for item in finding.items}
    (data / REJECTED).mkdir(exist_ok=True)
    with _moves(data).open("a", encoding="utf-8") as file:
        for path, why in moved.items():
            file.write(json.dumps({"file": str(path.relative_to(data)), "why": why}, ensure_ascii=False) + "\n")
    for path in moved:
        move_to_rejected(data, path)
    return len(moved)


def undo(data: Path) -> int:
    """Move back what `fix` moved and is still there; return how many files that were."""
    if not _moves(data).is_file():
        raise DatasetError(f"nothing to move back: no {_moves(data)}")
    back = 0
    for line in _moves(data).read_text(encoding="utf-8").splitlines():
        name = Path(json.loads(line)["file"])
        source, target = data / REJECTED / name, data / name
        if name.is_absolute() or ".." in name.parts or target.exists() or not source.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        source.replace(target)
        back += 1
    _moves(data).unlink()
    return back


def _moves(data: Path) -> Path:
    return data / REJECTED / "moves.jsonl"


def to_html(data: Path, items: list[Sample], health: Health) -> str:
    """Return one page, opening offline: the table, the findings with pictures, and a picture of every session."""
    rows = "".join(f"<pre>{html.escape(table(health))}</pre>")
    advice = "".join(f"<li>{html.escape(text)}" for text in health.advice)
    findings = "".join(
        f"<h3>{'error' if finding.error else 'warning'}: {html.escape(finding.text)}</h3>"
        + "".join(map(_figure, finding.items[:THUMBNAILS]))
        for finding in health.findings
    )
    first = {(item.label, item.session): item for item in reversed(items)}
    sessions = "".join(
        f"<h3>{html.escape(label)}</h3>"
        + "".join(_figure(item) for (own, _), item in sorted(first.items()) if own == label)
        for label in health.rows
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>dataset {html.escape(str(data))}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
pre {{ overflow-x: auto }} figure {{ display: inline-block; width: 120px; margin: 0 .6rem .6rem 0; font-size: .75rem;
vertical-align: top; overflow-wrap: anywhere }} img {{ display: block; border-radius: .3rem }}
</style>
<h1>{html.escape(str(data))}: {len(items)} files, {len(first)} recordings</h1>{rows}
<h2>What to do next</h2><ul>{advice or "<li>Nothing: train on it."}</ul>
<h2>What is wrong</h2>{findings or "<p>Nothing.</p>"}
<h2>The first frame of every session</h2>{sessions}</html>
"""


def _figure(item: Sample) -> str:
    picture = thumbnail(item.path)
    image = ""
    if picture is not None:
        code = base64.b64encode(cv2.imencode(".jpg", picture)[1]).decode()
        image = f'<img src="data:image/jpeg;base64,{code}" alt="">'
    return f"<figure>{image}{html.escape(f'{item.label}/{item.path.name}')}</figure>"


if __name__ == "__main__":
    cli.run(main)
