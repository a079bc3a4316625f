"""Files that are written completely or not at all, and digests that follow the content."""

import os
from pathlib import Path

import pytest

from stella_assets.storage import files
from stella_assets.storage.files import (
    file_digest,
    file_digest_unless_changed,
    link_atomically,
    new_folder,
    replace_atomically,
    write_atomically,
)


def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path):
    path = tmp_path / "deep" / "note.txt"
    write_atomically(path, "old")
    with replace_atomically(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(tmp_path: Path):
    path = tmp_path / "note.txt"
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="disk"), replace_atomically(path) as fresh:  # noqa: PT012 (the write comes first)
        fresh.write_text("half")
        raise OSError("disk")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_redirected_in_one_step(tmp_path: Path):
    link = tmp_path / "current"
    for target in ("one", "two"):
        link_atomically(link, target)
        assert link.readlink() == Path(target)
    assert list(tmp_path.iterdir()) == [link]


def test_a_digest_is_computed_once_and_again_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    computed: list[Path] = []
    monkeypatch.setattr(files, "file_digest", lambda path: computed.append(path) or file_digest(path))
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    first = file_digest_unless_changed(path)
    assert file_digest_unless_changed(path) == first == file_digest(path)
    assert len(computed) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 1))
    assert file_digest_unless_changed(path) == file_digest(path) != first
    assert len(computed) == 2


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / ".out.draft").mkdir()
    (tmp_path / ".out.draft" / "old").write_text("of a killed writer")
    with pytest.raises(IsADirectoryError), new_folder(tmp_path / "out") as draft:
        draft.write_text("fails")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as draft:
        (draft / "whole").write_text("")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
