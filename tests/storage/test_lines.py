"""Rows at the end of a file: whole, in order, and all of them, whoever writes and whatever was left there."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stella_assets.storage.lines import TAIL, append_lines


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_rows_are_appended_in_order_whatever_is_in_their_texts(tmp_path: Path):
    path = tmp_path / "a" / "rows.jsonl"
    append_lines(path, [])
    assert not path.exists()
    append_lines(path, [{"n": 1, "text": "a\nb\u2028c"}, {"n": 2, "text": Path("x")}])
    append_lines(path, [{"n": 3}])
    assert rows_of(path) == [{"n": 1, "text": "a\nb\u2028c"}, {"n": 2, "text": "x"}, {"n": 3}]
    assert len(path.read_text("utf-8").splitlines()) == 3


@pytest.mark.parametrize("partial", [1, 30, TAIL - 1, TAIL, TAIL + 1, 3 * TAIL])
@pytest.mark.parametrize("whole", [b"", b'{"n": 1}\n'])
def test_what_a_killed_writer_left_of_its_line_is_removed(partial: int, whole: bytes, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(whole + b"{" * partial)
    append_lines(path, [{"n": 2}])
    assert path.read_bytes() == whole + b'{"n": 2}\n'


def test_writers_take_turns(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    code = """
import sys
from pathlib import Path
from stella_assets.storage.lines import append_lines
for number in range(200):
    append_lines(Path(sys.argv[1]), [{"writer": sys.argv[2], "n": number}])
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    for name in "ab":
        assert [row["n"] for row in rows_of(path) if row["writer"] == name] == list(range(200))


def test_a_row_for_which_there_is_no_space_leaves_the_file_as_it_was(tmp_path: Path):
    """A limit on the size of files acts as a full disk does: what fits of a row is written."""
    path = tmp_path / "rows.jsonl"
    append_lines(path, [{"n": 1}])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            append_lines(path, [{"n": 2, "text": "longer than what is left"}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
