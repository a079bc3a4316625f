import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from stella_assets.storage.errors import VectorError
from stella_assets.storage.journal import Journal
from stella_assets.storage.journal_frames import MARK
from stella_assets.storage.journal_repair import damaged_journals
from stella_assets.storage.keys import to_keys

DIM = 6


def keys_of(numbers: range) -> np.ndarray:
    # Multiplied, so that keys are spread and those of one record do not lie side by side.
    return to_keys([f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}{number:016x}" for number in numbers])


def vectors_of(numbers: range) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(10_000, DIM))[numbers.start : numbers.stop]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def append(journal: Journal, numbers: range) -> None:
    journal.append(keys_of(numbers), vectors_of(numbers), {"tokens": len(numbers), "request": f"r{numbers.start}"})


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def test_a_record_is_on_the_disk_when_it_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    def sync(descriptor: int) -> None:
        real(descriptor)
        flushed.append(os.fstat(descriptor).st_size)

    real = os.fsync
    journal = Journal(tmp_path, DIM)
    append(journal, range(0, 3))
    monkeypatch.setattr(os, "fsync", sync)
    for numbers in (range(3, 10), range(10, 12)):
        append(journal, numbers)
        (file,) = files(tmp_path)
        assert flushed.pop() == file.stat().st_size  # all of the record, before `append` returns
        assert journal.has(keys_of(numbers)).all()


def test_vectors_are_found_again_by_key_whatever_the_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DIM)
    append(journal, range(0, 40))
    append(journal, range(40, 100))
    asked = np.concatenate([keys_of(range(95, 105)), keys_of(range(3))])
    for each in (journal, Journal(tmp_path, DIM)):
        positions, vectors = each.find(asked)
        assert positions.tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
        expected = np.concatenate([vectors_of(range(95, 100)), vectors_of(range(3))]).astype(np.float16)
        assert np.array_equal(vectors, expected)
        assert each.has(asked).tolist() == [i in positions for i in range(len(asked))]
    assert [record.about()["request"] for record in journal.records()] == ["r0", "r40"]
    assert len(journal) == 100


def test_what_is_returned_is_what_is_found_later(tmp_path: Path) -> None:
    kept = Journal(tmp_path, DIM).append(keys_of(range(9)), vectors_of(range(9)), {})
    assert np.array_equal(Journal(tmp_path, DIM).find(keys_of(range(9)))[1], kept)


def test_processes_have_files_of_their_own_and_see_each_other(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, DIM), Journal(tmp_path, DIM)
    append(first, range(5))
    append(second, range(5, 9))
    append(first, range(9, 12))
    assert len(files(tmp_path)) == 2
    assert len(first) == len(second) == 12
    assert first.find(keys_of(range(12)))[0].tolist() == list(range(12))


def test_of_a_text_that_was_answered_twice_the_first_answer_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DIM)
    append(journal, range(4))
    journal.append(keys_of(range(4)), vectors_of(range(100, 104)), {})
    assert np.array_equal(journal.find(keys_of(range(4)))[1], vectors_of(range(4)).astype(np.float16))


def test_a_file_cut_anywhere_gives_all_records_before_the_cut(tmp_path: Path) -> None:
    whole = Journal(tmp_path / "whole", DIM)
    for start in range(0, 12, 4):
        append(whole, range(start, start + 4))
    (file,) = files(tmp_path / "whole")
    content, ends = file.read_bytes(), [record.offset + record.size for record in whole.records()]
    for cut in range(0, len(content) + 1, 7):
        folder = tmp_path / f"cut_{cut}"
        folder.mkdir()
        (folder / file.name).write_bytes(content[:cut])
        journal = Journal(folder, DIM)
        finished = sum(end <= cut for end in ends)
        assert journal.find(keys_of(range(12)))[0].tolist() == list(range(4 * finished))
        assert journal.damages == []
        left = cut - ([0, *ends][finished])
        assert journal.unfinished == ({folder / file.name: left} if left else {})


def test_every_flipped_byte_is_named_and_costs_its_own_record_only(tmp_path: Path) -> None:
    whole = Journal(tmp_path / "whole", DIM)
    for start in range(0, 12, 4):
        append(whole, range(start, start + 4))
    (file,) = files(tmp_path / "whole")
    content, middle = file.read_bytes(), list(whole.records())[1]
    folder = tmp_path / "flipped"
    folder.mkdir()
    for at in range(middle.offset, middle.offset + middle.size, 5):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        (folder / file.name).write_bytes(changed)
        journal = Journal(folder, DIM)
        positions, vectors = journal.find(keys_of(range(12)))
        assert positions.tolist() == [*range(4), *range(8, 12)], at
        assert np.array_equal(vectors, vectors_of(range(12)).astype(np.float16)[positions])
        journal.verify()
        assert len(journal.damages) == 1, (at, journal.damages)
        assert str(file.name) in journal.damages[0]


def test_every_flipped_bit_is_damage_also_of_the_last_record_and_no_cut_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DIM)
    for start in (0, 4):
        append(journal, range(start, start + 4))
    (file,) = files(tmp_path)
    content, last = file.read_bytes(), list(journal.records())[1]
    last_said = last.about()
    for at in range(8 * last.offset, 8 * (last.offset + last.size), 3):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        file.write_bytes(changed)
        [damaged] = damaged_journals(tmp_path)
        assert "1 of 2 records" in damaged.what, at
        with suppress(ValueError):  # what was said of the request is that, or cannot be read
            assert [record.about() for record in Journal(tmp_path, DIM).records()][1:] in ([], [last_said])
    for cut in range(last.offset, last.offset + last.size):
        file.write_bytes(content[:cut])
        assert list(damaged_journals(tmp_path)) == []
    file.write_bytes(content[: last.offset] + bytes(9))
    assert len(list(damaged_journals(tmp_path))) == 1


def test_records_of_older_versions_have_no_checksum_of_their_words(tmp_path: Path) -> None:
    journal = Journal(tmp_path, DIM)
    append(journal, range(4))
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    assert content[60:64] != bytes(4)
    content[60:64] = bytes(4)
    content[8:40] = hashlib.sha256(content[40:]).digest()
    file.write_bytes(content)
    [record] = Journal(tmp_path, DIM).records()
    assert record.is_whole()
    assert record.about()["request"] == "r0"


def test_a_mark_within_a_vector_does_not_begin_a_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 4)
    odd = np.frombuffer(MARK, dtype="<f2")[None].astype(np.float16)
    journal.append(keys_of(range(1)), odd, {})
    journal.append(keys_of(range(1, 2)), np.ones((1, 4), np.float32), {})
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    again = Journal(tmp_path, 4)
    assert again.find(keys_of(range(2)))[0].tolist() == [1]
    assert len(again.damages) == 1


@pytest.mark.parametrize("vectors", [np.full((2, DIM), np.nan), np.ones((2, DIM + 1)), np.ones((3, DIM))])
def test_what_is_no_answer_is_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    journal = Journal(tmp_path, DIM)
    with pytest.raises(VectorError):
        journal.append(keys_of(range(2)), vectors, {})
    assert len(journal) == 0


def test_vectors_of_other_dimensions_are_named_and_not_used(tmp_path: Path) -> None:
    append(Journal(tmp_path, DIM), range(3))
    other = Journal(tmp_path, DIM + 1)
    assert other.find(keys_of(range(3)))[0].size == 0
    assert "dimensions" in other.damages[0]


WRITER = """
import sys
from pathlib import Path
from tests.storage.test_journal import DIM, append
from stella_assets.storage.journal import Journal
journal = Journal(Path(sys.argv[1]), DIM)
for start in range(0, 9_000, 30):
    append(journal, range(start, start + 30))
    print(start + 30, flush=True)
"""


def test_killed_writers_lose_nothing_that_append_returned_for(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for number in range(4):
        folder = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        told = [30, *(int(line) for line in process.stdout.read().splitlines())]
        process.wait()
        journal = Journal(folder, DIM)
        # The record of which the process was killed before it could tell may be there, too.
        assert len(journal) in (told[-1], told[-1] + 30)
        positions, vectors = journal.find(keys_of(range(len(journal))))
        assert len(positions) == len(journal)
        assert np.array_equal(vectors, vectors_of(range(len(journal))).astype(np.float16))
        assert journal.damages == []
