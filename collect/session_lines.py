"""Say which lines of sessions.jsonl can't be read, and which sessions have none."""

from __future__ import annotations

from pathlib import Path

from teachcam.collect.dataset import GUESSED, Sample
from teachcam.collect.names import SESSIONS_FILE, normalize_text
from teachcam.files import expand
from teachcam.json_lines import scan_json_lines

MAX_NAMED = 4  # lines or sessions in one sentence


def describe_damage(data: Path | str) -> str:
    """Return one line about what can't be read in a dataset's sessions.jsonl, or "" if everything can."""
    path = expand(data) / SESSIONS_FILE
    lines = scan_json_lines(path, "session")
    if lines.error:
        return f"can't read {path}: {lines.error}; the places that were named there are not known"
    places = [line.get("place") for line in lines.objects]
    no_text = [number for number, place in zip(lines.numbers, places) if isinstance(place, (list, dict, bool))]
    damaged = sorted({*lines.damaged, *no_text})
    if not damaged:
        return ""
    return (
        f"{path}: line{'s' * (len(damaged) > 1)} {_join(list(map(str, damaged)))} can't be read as a whole: a session "
        "may have lost its place; teachcam check names those without a line"
    )


def describe_unlisted(data: Path | str, scenes: dict[str, list[Sample]]) -> list[str]:
    """Return lines about the sessions without a line in sessions.jsonl, if places are named there or it is damaged.

    Args:
        data: The folder of the dataset.
        scenes: The samples of each scene, as an Inspection has them.
    """
    lines = scan_json_lines(expand(data) / SESSIONS_FILE, "session")
    if not lines.damaged and not any(line.get("place") for line in lines.objects):
        return []  # nobody names places here, or the images come from elsewhere
    listed = {normalize_text(str(line.get("session"))) for line in lines.objects}
    alone, joined = [], []
    for scene, samples in scenes.items():
        sessions = {sample.session for sample in samples if not sample.session.startswith(GUESSED)}
        if sessions & listed:
            joined += [f"{session} in {scene}" for session in sorted(sessions - listed)]
        else:
            alone += sorted(sessions)
    described = []
    if alone:
        command = f"teachcam check --data {data} --place NAME --sessions {alone[0]}"
        described.append(
            f"{_count(alone)} no line in {SESSIONS_FILE}, and a background unlike all others: {_join(alone)}. "
            f"Name the place, or images of one room may be in training and validation: {command}"
        )
    if joined:
        described.append(f"{_count(joined)} no line in {SESSIONS_FILE}, and a place by the background: {_join(joined)}")
    return described


def _count(sessions: list[str]) -> str:
    return "1 session has" if len(sessions) == 1 else f"{len(sessions)} sessions have"


def _join(names: list[str]) -> str:
    if len(names) > MAX_NAMED:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
