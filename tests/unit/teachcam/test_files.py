"""Writing files: an error of the disk names the file."""

from __future__ import annotations

import resource

import pytest

from teachcam.files import append_json_line, write_atomic


@pytest.fixture
def full_disk():
    """A limit of 4 kB for every file: writing fails as on a full disk, with an OSError that names no file."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def test_an_error_while_writing_names_the_file(tmp_path, full_disk):
    file = tmp_path / "file"
    with pytest.raises(OSError, match="too large") as error:
        write_atomic(file, bytes(5000))
    assert error.value.filename == str(file)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="too large") as error:
        append_json_line(file, {"text": "x" * 5000})
    assert error.value.filename == str(file)
