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
from stella_assets.core.step import BuildContext, CheckSpec, Presentation, Result, Step, from_folder
from stella_assets.corpus.errors import EmptyCorpusError
from stella_assets.corpus.read import CorpusTexts
from stella_assets.students import StudentConfig
from stella_assets.students.tokenise import pad_on_the_right, tokenise

CODE_VERSION = "1"
TOKENS_FILE = "tokens.arrow"
PRESENTATION = Presentation(
    group="training",
    description="The corpus as the student's tokenizer sees it, once for all stages.",
    kinds=frozenset({"arrow"}),
    checks=(CheckSpec("no_text_is_too_long", "No text has more tokens than the student takes."),),
)


def tokens_step(recipe: str, *, student: StudentConfig, corpus: Step[CorpusTexts]) -> Step[TokenTable]:
    """The step that makes `tokenised_texts`.

    Args:
        recipe: Name of the recipe.
        student: Settings of the student.
        corpus: The texts.

    Returns:
        A step whose artefact is a `TokenTable`.
    """
    # Only what changes tokens is part of the identity, so students that differ in heads or layers share the artefact.
    settings = student.settings()
    return Step(
        recipe=recipe,
        name="tokenised_texts",
        code_version=CODE_VERSION,
        settings={key: settings[key] for key in ("max_length", "prompts", "query_prompts")},
        build=lambda context: _tokenise(student, context.read(corpus), context),
        presentation=PRESENTATION,
        read=from_folder(_open),
        dependencies=(corpus,),
        external_versions=lambda _workspace: {"student": model_digest(student)},
    )


def write_tokens(path: Path, student: StudentConfig, texts: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
    """Tokenise texts into a file for `TokenTable`.

    Args:
        path: Of the file.
        student: Its tokenizer, length and prompts.
        texts: With `id`, `role` and `text`, in the order of their ids.

    Yields:
        Tokens of each text, batch by batch.

    Raises:
        EmptyCorpusError: There are no texts.
    """
    tokenizer = load_tokenizer(student)
    pad_on_the_right(tokenizer, student.model)
    # In the file itself, so that it can be padded without loading a tokenizer.
    metadata = {"padding": json.dumps(padding_of(tokenizer)), "padding_side": tokenizer.padding_side}
    writer: pa.RecordBatchFileWriter | None = None
    for batch in texts:
        rows = batch.to_pydict()
        prompted = [
            student.prompt_of(key, role) + text
            for key, role, text in zip(rows["id"], rows["role"], rows["text"], strict=True)
        ]
        tokens = tokenise(tokenizer, prompted, student.max_length)
        lists = {name: pa.array(column, pa.list_(pa.int32())) for name, column in tokens.columns.items()}
        written = pa.RecordBatch.from_pydict(lists)
        # The columns are known with the first batch. The file format, not the stream: it can be memory-mapped.
        writer = writer or pa.ipc.new_file(path, written.schema.with_metadata(metadata))
        writer.write_batch(written)
        yield tokens.lengths
    if writer is None:
        raise EmptyCorpusError("corpus: it has no texts.", "Add sources, or loosen corpus.clean.")
    writer.close()


def _tokenise(student: StudentConfig, texts: CorpusTexts, context: BuildContext) -> Result:
    limit = student.max_length
    tokens = longest = truncated = 0
    with progress_bar(len(texts), "tokenised_texts", "texts") as bar:
        scan = texts.scan(["id", "role", "text"])
        for lengths in write_tokens(context.folder / TOKENS_FILE, student, scan):
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
    """Rows of different lengths in a memory-mapped file."""

    def __init__(self, chunks: Sequence[pa.ListArray]) -> None:
        # `values` is the whole child array also of a slice, and offsets count from its beginning, so the two fit.
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._starts = np.cumsum([0, *map(len, chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: Any) -> Any:
        # Found by bisection: joining the chunks would copy the file into memory.
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        start, end = self._offsets[chunk][row - self._starts[chunk] :][:2]
        return self._values[chunk][start:end]

    def lengths(self) -> np.ndarray:
        return np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int64)


class TokenTable:
    """The tokens of a corpus, by row number; they stay on disk.

    Args:
        path: Of the file that `write_tokens` wrote.
    """

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        columns = {name: _RaggedColumn(table.column(name).chunks) for name in table.column_names}
        # The lengths alone are in memory: 8 bytes per text, for plans over the whole split.
        self.lengths = columns["input_ids"].lengths()
        # Files of earlier versions may name the other side: ids are not padded in them, and students pad here.
        self.texts = TokenisedTexts(columns, json.loads(metadata["padding"]), {}, left=False)

    def __len__(self) -> int:
        return len(self.lengths)


def _open(folder: Path) -> TokenTable:
    return TokenTable(folder / TOKENS_FILE)
