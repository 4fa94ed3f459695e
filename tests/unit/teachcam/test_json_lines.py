"""Files of JSON lines that a power cut, an editor or a merge has damaged."""

from __future__ import annotations

import json
import os

import pytest

from teachcam.files import append_json_line, read_json_lines
from teachcam.json_lines import scan_json_lines

A, B, C = ({"session": name, "place": place} for name, place in (("a", "küche"), ("b", "attic"), ("c", "barn")))
LINES = [json.dumps(content, ensure_ascii=False) for content in (A, B, C)]
PRETTY = json.dumps(B, indent=2)


@pytest.mark.parametrize(
    ("text", "objects", "damaged"),
    [
        ("\n".join(LINES), [A, B, C], []),
        ("\r\n".join(LINES) + "\r\n", [A, B, C], []),
        ("\r".join(LINES), [A, B, C], []),
        ("\ufeff" + "\n\n".join(LINES), [A, B, C], []),
        (f"{LINES[0]}\n\ufeff{LINES[1]}\n", [A, B], []),
        (f"{LINES[0]}{LINES[1]} {LINES[2]}\n", [A, B, C], []),
        (",\n".join(LINES), [A, B, C], []),
        (f"[{', '.join(LINES)}]", [A, B, C], []),
        (f"{LINES[0]}\n{PRETTY}\n{LINES[2]}", [A, B, C], []),
        (f'{LINES[0]}\n{{"session": "b", "place": "attic",}}\n', [A, B], []),
        (f"{LINES[0][:-9]}\n{LINES[1]}\n", [B], [1]),
        (f"{LINES[0]}\n{LINES[1][:-9]}{LINES[2]}\n", [A, C], [2]),
        (f"{LINES[0]}\n{LINES[1][:20]}", [A], [2]),
        (f"{LINES[0]}\n" + "\0" * 40 + f"\n{LINES[1]}\n", [A, B], [2]),
        (f"{LINES[0]}\n" + "\0" * 40 + LINES[1], [A, B], [2]),
        (f"{LINES[0]}\n<<<<<<< HEAD\n{LINES[1]}\n=======\n{LINES[2]}\n>>>>>>> b\n", [A, B, C], [2, 4, 6]),
        (f'5\n"x"\n[1]\n{LINES[0]}\n', [A], [1, 2, 3]),
        ('{"session": "x", "session": "a", "place": "küche"}\n', [A], [1]),
        ('{"session": "a", "more": {"place": "q"}, "cut\n', [], [1]),  # the part of an object is not an object
        (f'{{\n"session": "a",\n"more": {{\n"place": "q"\n}},\n{LINES[1]}\n', [B], [1, 2, 3]),
        (f"{PRETTY[:-10]}\n{LINES[2]}\n", [C], [1, 2, 3]),
        ("[" * 5000 + f"\n{LINES[0]}", [A], [1]),
        ("", [], []),
    ],
)
def test_every_whole_object_is_read_and_other_lines_are_named(tmp_path, text, objects, damaged):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(text.encode())
    found = scan_json_lines(path, "session")
    assert found.objects == objects == read_json_lines(path, "session")
    assert found.damaged == damaged
    assert len(found.numbers) == len(objects)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_a_file_saved_in_utf_16_takes_further_lines(tmp_path, codec):
    path = tmp_path / "lines.jsonl"
    for end in ("", "\r\n"):
        path.write_bytes(("\ufeff" + LINES[0] + end).encode(codec))
        append_json_line(path, B)
        append_json_line(path, C)
        assert scan_json_lines(path, "session").objects == [A, B, C]
        assert scan_json_lines(path, "session").damaged == []


def test_letters_in_another_encoding_are_named(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(LINES[1].encode() + b"\n" + LINES[0].encode("latin-1"))
    assert [line["session"] for line in scan_json_lines(path).objects] == ["b", "a"]
    assert scan_json_lines(path).damaged == [2]


def test_a_file_that_is_not_there_is_empty_and_one_that_can_not_be_read_says_why(tmp_path):
    assert scan_json_lines(tmp_path / "nowhere").error == ""
    (tmp_path / "folder").mkdir()
    assert "directory" in scan_json_lines(tmp_path / "folder").error.lower() or os.name == "nt"
    assert read_json_lines(tmp_path / "folder") == []
