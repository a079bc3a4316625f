"""Files as people have them: every row is kept or dropped with its place and a reason."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stella_assets.corpus.cleaned import read_source
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.settings import Clean
from stella_assets.corpus.shards import CLEANED_KIND, CleanedTexts
from stella_assets.corpus.source_reader import SourceReader
from stella_assets.corpus.sources.delimited import Records
from stella_assets.corpus.sources.encoded import PIECE
from stella_assets.corpus.sources.json_values import values_of
from stella_assets.corpus.sources.jsonl import JsonLines
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import TOKENIZER
from tests.corpus.messy import CASES, TEN, Case, jsonl, text

RULES = {"min_chars": 1, "min_letters": 0, "max_repetition": 1}
CLEAN = Clean.model_validate({"document": RULES, "query": RULES, "boilerplate": ()})


def write(case: Case, folder: Path) -> None:
    if callable(case.files):
        case.files(folder)
        return
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(source: Any, workspace: Workspace) -> tuple[int, list[str], list[tuple[str, str]]]:
    """How many rows were read, the texts that were kept, and where the others are and why they were not."""
    shards, dropped = read_source(source, SourceReader(CLEAN, TOKENIZER, workspace), lambda _: None)
    texts = CleanedTexts(workspace.root, tuple(shards), ShardStore(workspace, CLEANED_KIND))
    kept = [text for shard in shards for text in texts.rows(shard, ["text"])["text"]]
    reasons = [(row["origin"], f"{row['rule']}: {row['detail']}") for row in dropped.to_dicts()]
    return sum(shard.read for shard in shards), kept, reasons


def test_there_are_sixty_cases_and_ten_of_public_reports():
    assert len(CASES) >= 60
    assert len({case.report for case in CASES.values() if case.report}) >= 10


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_kept_or_dropped_with_a_reason(name: str, tmp_path: Path, corpus_with, workspace: Workspace):
    case = CASES[name]
    write(case, tmp_path)
    (source,) = corpus_with(**{"max_malformed": 1.0, **case.source}).sources
    preview = source.preview()
    rows, kept, dropped = read(source, workspace)
    assert sorted(kept) == sorted(case.kept)
    places = [(place, reason) for place, reason in dropped]
    assert [place for place, _ in sorted(places)] == sorted(place for place, _ in case.dropped), places
    for place, reason in case.dropped:
        assert reason in dict(places)[place]
    assert rows == case.rows == len(kept) + len(dropped)
    # What is seen before a run is what the run finds: these files have fewer rows than are looked at.
    assert preview.rows == rows
    assert preview.example or not kept


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bz2", "xz"])
def test_rows_before_the_break_of_an_archive_are_kept(
    pack: Callable[[bytes], bytes], tmp_path: Path, corpus_with, workspace: Workspace
):
    texts = [text(number) for number in range(3000)]
    (tmp_path / "a.txt.packed").write_bytes(pack("\n".join(texts).encode())[:-4])
    (source,) = corpus_with(kind="text", path="./a.txt.packed", unit="line", max_malformed=1.0).sources
    rows, kept, dropped = read(source, workspace)
    assert [place for place, _ in dropped] == ["a.txt.packed"]
    assert rows == len(kept) + 1
    assert kept == texts[: len(kept)]
    # What is lost lies within the last piece.
    assert sum(len(each) + 1 for each in texts[len(kept) :]) <= PIECE + len(texts[0])


@pytest.mark.parametrize("after", [jsonl(TEN), None], ids=["changed", "gone"])
def test_a_file_that_changes_while_it_is_read_is_not_kept_as_what_it_was(
    after: str | None, tmp_path: Path, corpus_with, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    path, before = tmp_path / "a.jsonl", jsonl(TEN[:3])
    path.write_text(before)
    (source,) = corpus_with(kind="jsonl", path="./a.jsonl").sources
    rows = JsonLines.rows

    def rows_of_another_file(self: JsonLines, path: Path, section: str) -> Any:
        yield from list(rows(self, path, section))
        path.unlink() if after is None else path.write_text(after)

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "rows", rows_of_another_file)
        with pytest.raises(SourceError, match=r"a.jsonl: source 'mine' changed while it was read\. Run again"):
            read(source, workspace)
    path.write_text(before)
    assert read(source, workspace) == (3, TEN[:3], [])


@pytest.mark.parametrize("seed", range(200))
def test_files_that_are_quoted_well_are_read_as_they_were_written(seed: int):
    draw = random.Random(seed)
    delimiter, width = draw.choice(",;|"), draw.randint(1, 4)
    alphabet = draw.choice(['ab \n\r,;\t|"é', 'abc d,"'])
    rows = [
        # A row of one blank field is a blank line, and the end of a line is none of a text.
        ["x" + "".join(draw.choices(alphabet, k=draw.randint(0, 14))).rstrip("\r") for _ in range(width)]
        for _ in range(draw.randint(1, 20))
    ]
    file, header = io.StringIO(newline=""), [f"c{number}" for number in range(width)]
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=draw.choice(["\n", "\r\n"]))
    writer.writerows([header, *rows])
    records = Records(io.StringIO(file.getvalue(), newline="\n"), ",", "auto")
    assert records.header(header) == header
    found = list(records)
    assert [record.fields for record in found] == rows
    assert [record.wrong for record in found] == [""] * len(rows)
    # Every line belongs to one record.
    assert sum(record.lines for record in found) == file.getvalue().count("\n") - 1


@pytest.mark.parametrize("seed", range(100))
def test_json_documents_are_read_in_pieces_of_any_size(seed: int):
    draw = random.Random(seed)

    class Pieces(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return super().read(draw.randint(1, 9))

    rows = [{"text": "".join(draw.choices('ab"\\{}[],\n é', k=20)), "n": [{"a": 1}]} for _ in range(6)]
    indent = draw.choice([None, 0, 2])
    array, objects = json.dumps(rows, indent=indent), "\n".join(json.dumps(row, indent=indent) for row in rows)
    for document in (array, objects):
        assert [value for _, _, value, wrong in values_of(Pieces(document)) if not wrong] == rows
