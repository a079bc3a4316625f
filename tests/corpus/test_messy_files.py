"""Files as people have them: every row is kept or dropped with its place and a reason."""

from pathlib import Path
from typing import Any

import pytest

from stella_assets.corpus.cleaned import read_source
from stella_assets.corpus.settings import Clean
from stella_assets.corpus.shards import CLEANED_KIND, CleanedTexts
from stella_assets.corpus.source_reader import SourceReader
from storage.shards import ShardStore
from storage.workspace import Workspace
from tests.corpus.conftest import TOKENIZER
from tests.corpus.messy import CASES, Case

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
