"""Kinds of sources: a kind of another package works like the shipped ones, and reading a recipe is quick."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from stella_assets.corpus.cleaned import cleaned_step, read_source
from stella_assets.corpus.settings import Clean, CorpusSettings
from stella_assets.corpus.shards import CLEANED_KIND, CleanedTexts
from stella_assets.corpus.source_reader import SourceReader
from stella_assets.corpus.sources import SOURCES, RawText, Rows, SourceConfig, SourcePart
from stella_assets.storage.canonical import digest
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import TOKENIZER, build, different, funnel_of, rows_of

IDENTITIES = {
    # kind: (settings, the keys that decide which rows are read)
    "python_docs": ({}, {"kind", "name", "licence", "packages", "first_sentence_queries"}),
    "parquet": ({"path": "a"}, {"kind", "name", "licence", "role", "columns"}),
    "jsonl": ({"path": "a"}, {"kind", "name", "licence", "role", "columns", "encoding"}),
    "csv": ({"path": "a"}, {"kind", "name", "licence", "role", "columns", "encoding", "delimiter"}),
    "text": ({"path": "a"}, {"kind", "name", "licence", "role", "encoding", "unit"}),
    "lance": ({"path": "a"}, {"kind", "name", "licence", "role", "columns", "path", "version"}),
    "huggingface": (
        {"dataset": "a", "revision": "b", "limit": 1},
        {"kind", "name", "licence", "role", "columns", "dataset", "revision", "config", "dataset_split", "limit"},
    ),
}


@pytest.fixture
def _greetings(monkeypatch) -> None:
    """A kind that another package registers."""
    monkeypatch.setattr(SOURCES, "_kinds", dict(SOURCES._kinds))

    @SOURCES.register
    class Greetings(SourceConfig):
        """Greetings, each different."""

        kind: Literal["greetings"]
        count: int = Field(description="how many")

        def parts(self) -> list[SourcePart]:
            return [SourcePart(digest(self.count))]

        def read(self, part: SourcePart) -> Rows:
            for number in range(self.count):
                yield RawText(different(number), "greetings", "document", self.licence, f"greeting {number}")

        def check(self) -> None:
            pass


@pytest.mark.usefixtures("_greetings")
def test_a_kind_of_another_package_is_read_from_the_recipe_to_the_corpus(workspace: Workspace):
    class Settings(CorpusSettings):
        sources: tuple[SOURCES.union(), ...]

    def read(count: int) -> Settings:
        source = {"kind": "greetings", "name": "hello", "licence": "CC0-1.0", "count": count}
        return Settings.model_validate({"sources": [source], "dev": 0.2, "test": 0.2})

    made = build(read(40), workspace)
    assert funnel_of(made) == {"read": 40, "kept": 40}
    assert {row["text"] for row in rows_of(made)} == {different(i) for i in range(40)}
    assert {row["source"] for row in rows_of(made)} == {"hello"}
    more = build(read(41), workspace)
    assert len(rows_of(more)) == 41
    step = cleaned_step("tiny", corpus=read(40), tokenizer=TOKENIZER)
    (settings,) = step.settings["sources"]
    assert settings == {"kind": "greetings", "name": "hello", "licence": "CC0-1.0", "count": 40}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_only_settings_that_decide_which_rows_are_read_make_a_source_be_read_again(kind: str):
    keys, expected = IDENTITIES[kind]
    raw: dict[str, Any] = {"kind": kind, "name": "a", "licence": "MIT", "weight": 0.5, **keys}
    (source,) = CorpusSettings.model_validate({"sources": [raw]}).sources
    assert set(source.reading_settings()) == expected


def test_every_shipped_kind_has_its_identity_tested():
    assert set(SOURCES.names()) == set(IDENTITIES)


def test_every_key_of_every_kind_is_documented():
    for kind in SOURCES:
        missing = [key for key, field in kind.model_fields.items() if key != "kind" and not field.description]
        assert (kind.__name__, missing) == (kind.__name__, [])


def test_reading_the_settings_of_a_corpus_imports_no_large_library(tmp_path: Path):
    large = ["numpy", "pyarrow", "polars", "lance", "datasets", "huggingface_hub", "transformers"]
    code = (
        "import sys; from stella_assets.corpus.settings import CorpusSettings;"
        "CorpusSettings.model_validate({'sources': [{'kind': 'csv', 'name': 'a', 'licence': 'b', 'path': 'c'}]});"
        f"print([name for name in {large} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_source_is_pinned_before_it_is_asked_for_its_parts(monkeypatch, workspace: Workspace):
    monkeypatch.setattr(SOURCES, "_kinds", dict(SOURCES._kinds))

    class Moving(SourceConfig):
        """A text per version, of which there is a newer one each time it is asked."""

        kind: Literal["moving"]
        version: int | None = None

        def pinned(self) -> "Moving":
            return self.with_values(version=next(versions))

        def parts(self) -> list[SourcePart]:
            return [SourcePart(f"version {self.version or next(versions)}")]

        def read(self, part: SourcePart) -> Rows:
            yield RawText(different(int(part.digest.split()[1])), "a", "document", self.licence, str(self.version))

        def check(self) -> None:
            pass

    versions = iter(range(1, 100))
    reader = SourceReader(Clean(), TOKENIZER, workspace)
    shards, _ = read_source(Moving(kind="moving", name="m", licence="MIT"), reader, lambda _: None)
    rows = CleanedTexts(workspace.root, tuple(shards), ShardStore(workspace, CLEANED_KIND)).rows(shards[0], ["text"])
    assert rows["text"].to_list() == [different(1)], "of the version that it was pinned to"
