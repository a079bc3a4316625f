"""Reading a corpus: columns, examples, and the counts of licences."""

import numpy as np
import pytest

from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.workspace import Workspace
from tests.corpus.conftest import build, different, rows_of


@pytest.fixture
def made(tmp_path, corpus_with, workspace: Workspace):
    texts = [f"{different(2 * i)} {different(2 * i + 1)}" for i in range(60)]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    changes = {"augment": {"shuffle": 0.5}, "clean": {}, "dev": 0.2, "test": 0.2}
    return build(corpus_with(changes, kind="text", path="./lines.txt", unit="line"), workspace)


def test_examples_are_the_texts_at_their_positions_and_texts_made_of_a_text_have_its_group(made):
    texts, rows = CorpusTexts(made["corpus"].folder), rows_of(made)
    positions = np.arange(0, len(texts), 7)
    examples = texts.examples(positions)
    assert [example.id for example in examples] == [rows[i]["id"] for i in positions]
    assert [example.text for example in examples] == [rows[i]["text"] for i in positions]
    assert {(example.source, example.role, example.licence) for example in examples} == {
        ("mine", "document", "CC0-1.0")
    }
    everything = texts.examples(np.arange(len(texts)))
    groups = {example.id: example.group for example in everything}
    assert any(row["parent"] for row in rows)
    assert all(groups[row["id"]] == (row["parent"] or row["id"]) for row in rows)


def test_licences_and_funnel_add_up_to_the_corpus(made):
    texts = CorpusTexts(made["corpus"].folder)
    assert texts.licence_counts() == [("CC0-1.0", len(texts))]
    assert {row["rule"]: row["texts"] for row in texts.funnel()} == {"read": 60, "kept": len(texts)}
    assert texts.table(["id"]).num_rows == len(texts) == sum(batch.num_rows for batch in texts.scan(["id"]))
