"""The step `tokenised_texts`: every text of the corpus as the student's tokenizer sees it, once for all stages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stella_assets.core.batching import TokenisedTexts, padding_of
from stella_assets.core.manifest import Check
from stella_assets.core.models import load_tokenizer, model_digest
from stella_assets.core.progress import progress_bar
from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.text import uniform
from stella_assets.recipe import Recipe
from stella_assets.recipe import Student as StudentSpec

CODE_VERSION = "1"
TOKENS_FILE = "tokens.arrow"


def tokens_step(recipe: Recipe) -> Step:
    """The step that makes `tokenised_texts`."""
    return Step(
        recipe=recipe.name,
        name="tokenised_texts",
        code_version=CODE_VERSION,
        settings={key: recipe.student.settings()[key] for key in ("max_length", "prompts", "query_prompts")},
        needs=(corpus_step(recipe),),
        sources=lambda _workspace: {"student": model_digest(recipe.student)},
        build=lambda context: _tokenise(recipe, context),
    )


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> TokenisedTexts:
    """Texts as the student reads them, truncated and unpadded."""
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, padding=False, return_attention_mask=False, verbose=False
    )
    columns = {name: [np.asarray(row, dtype=np.int32) for row in rows] for name, rows in encoded.items()}
    return TokenisedTexts(columns, padding_of(tokenizer), {}, left=tokenizer.padding_side == "left")


def text_prompt(spec: StudentSpec, text_id: str, role: str) -> str:
    """What the student reads before a text: queries get one of the recipe's prompts, documents none."""
    if role != "query" or not spec.query_prompts:
        return ""
    return spec.prompts[spec.query_prompts[int(uniform("prompt", text_id) * len(spec.query_prompts))]]


def write_tokens(path: Path, spec: StudentSpec, texts: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
    """Tokenise texts, given with `id`, `role` and `text` in the order of their ids, into a file for `TokenTable`.

    Yields:
        Tokens of each text, batch by batch.
    """
    tokenizer = load_tokenizer(spec)
    about = {"padding": json.dumps(padding_of(tokenizer)), "padding_side": tokenizer.padding_side}
    writer: pa.RecordBatchFileWriter | None = None
    for batch in texts:
        rows = batch.to_pydict()
        prompted = [
            text_prompt(spec, key, role) + text
            for key, role, text in zip(rows["id"], rows["role"], rows["text"], strict=True)
        ]
        tokens = tokenise(tokenizer, prompted, spec.max_length)
        lists = {name: pa.array(column, pa.list_(pa.int32())) for name, column in tokens.columns.items()}
        written = pa.RecordBatch.from_pydict(lists)
        writer = writer or pa.ipc.new_file(path, written.schema.with_metadata(about))
        writer.write_batch(written)
        yield tokens.lengths
    if writer is None:
        raise ValueError("corpus: it holds no text. Add sources, or loosen corpus.clean.")
    writer.close()


def _tokenise(recipe: Recipe, context: BuildContext) -> Result:
    texts, limit = CorpusTexts(context.inputs["corpus"]), recipe.student.max_length
    tokens = longest = truncated = 0
    with progress_bar(len(texts), "tokenised_texts", "texts") as bar:
        scan = texts.scan(["id", "role", "text"])
        for lengths in write_tokens(context.folder / TOKENS_FILE, recipe.student, scan):
            tokens, longest = tokens + int(lengths.sum()), max(longest, int(lengths.max()))
            truncated += int((lengths >= limit).sum())
            bar.update(len(lengths))
    return Result(
        metrics={
            "texts": len(texts),
            "tokens": tokens,
            "mean_tokens": round(tokens / len(texts), 1),
            "longest": longest,
            "at_the_limit": truncated,
        },
        checks=(Check("no_text_is_too_long", longest <= limit, f"the longest text has {longest} tokens"),),
    )


class _RaggedColumn(Sequence[np.ndarray]):
    """Rows of unlike length in a memory-mapped file."""

    def __init__(self, chunks: Sequence[pa.ListArray]) -> None:
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._starts = np.cumsum([0, *map(len, chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: Any) -> Any:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        start, end = self._offsets[chunk][row - self._starts[chunk] :][:2]
        return self._values[chunk][start:end]

    def lengths(self) -> np.ndarray:
        return np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int64)


class TokenTable:
    """The tokens of a corpus, by row number; they stay on disk."""

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        columns = {name: _RaggedColumn(table.column(name).chunks) for name in table.column_names}
        self.lengths = columns["input_ids"].lengths()
        self.texts = TokenisedTexts(columns, json.loads(about["padding"]), {}, left=about["padding_side"] == "left")

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def open(cls, artefact: Artefact) -> TokenTable:
        """The tokens of a `tokenised_texts` artefact."""
        return cls(artefact.folder / TOKENS_FILE)
