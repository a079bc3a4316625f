"""The recipe's part on texts. The kinds of sources have their settings in `corpus.sources`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel, Fraction, Name, PathAware, Positive, doubled
from stella_assets.corpus.sources import SOURCES, SourceConfig
from stella_assets.storage.polars import pl

# The union is built from the kinds that are registered; a type checker only needs their base class.
if TYPE_CHECKING:
    Source = SourceConfig
else:
    Source = SOURCES.union()


class Rules(ConfigModel):
    """What a text must be to be kept."""

    min_chars: Positive = Field(default=20, description="characters at least")
    max_chars: Positive = Field(default=4000, description="characters at most")
    min_tokens: Positive | None = Field(default=None, description="tokens of the student's tokenizer at least")
    max_tokens: Positive | None = Field(default=None, description="tokens of the student's tokenizer at most")
    min_letters: Fraction = Field(default=0.4, description="share of letters among characters that are not blanks")
    max_repetition: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="share of three-word sequences that occurred in the text before"
    )

    @model_validator(mode="after")
    def _require_room(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class QueryRules(Rules):
    """The same for queries, which may be short."""

    min_chars: Positive = Field(default=3, description="characters at least")
    max_chars: Positive = Field(default=1000, description="characters at most")


class Clean(ConfigModel):
    """How texts are repaired, and which are kept."""

    document: Rules = Field(default=Rules(), description="rules for documents")
    query: QueryRules = Field(default=QueryRules(), description="rules for queries")
    html: bool = Field(
        default=True, description="remove tags, and replace entities by the characters that they stand for"
    )
    boilerplate: tuple[str, ...] = Field(
        default=(
            r"(all rights reserved|copyright (©|\(c\)).{0,80})",
            r"(accept|we use|this (web)?site uses) (all )?cookies\b.{0,200}",
            r"(share (this|on)|follow us on|tweet this|pin it)\b.{0,60}",
            r"(click here|read more|continue reading|skip to (main )?content|back to top|sign up|log ?in)\b.{0,40}",
            r"(privacy policy|terms (of (use|service)|and conditions))(\s*[|·•-].{0,80})?",
        ),
        description="regular expressions; a line that one of them matches as a whole is removed, whatever its case",
    )
    languages: tuple[str, ...] = Field(
        default=(), description="ISO 639-1 codes of the languages to keep; needs the extra `language`"
    )
    min_language_chars: Positive = Field(
        default=60, description="characters below which the language is not judged, and the text is kept"
    )

    def rules(self, role: str) -> Rules:
        """The rules for a role."""
        return self.query if role == "query" else self.document

    def min_chars(self) -> dict[str, int]:
        """The least characters of a text, by role."""
        return {"document": self.document.min_chars, "query": self.query.min_chars}

    @field_validator("boilerplate")
    @classmethod
    def _require_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        # Pydantic does not validate defaults, so polars is imported only for patterns of the recipe's own.
        for pattern in patterns:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.ComputeError:
                raise ValueError(f"{pattern!r} is not a regular expression; correct or remove it") from None
        return patterns


MAX_SIGNATURE = 1024
"""Hash values per text. 20 bands of 5 rows, which find nearly every near copy, are 100."""


class Deduplicate(ConfigModel):
    """Near copies: found by MinHash over word sequences, verified by their exact Jaccard similarity.

    References:
        Deduplicating Training Data Makes Language Models Better, arXiv 2107.06499, section 4.2.
    """

    # 20 bands of 5 rows find 99.96% of the pairs with a similarity of 0.8, the default threshold, and 80% at 0.6:
    # 1 - (1 - s^rows)^bands. More bands find more and cost more comparisons.
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Jaccard similarity from which a text is a near copy"
    )
    words: Positive = Field(default=5, le=100, description="length of a word sequence")
    bands: Positive = Field(default=20, le=256, description="bands; texts that agree in one of them are compared")
    rows: Positive = Field(default=5, le=32, description="hash values per band")

    @model_validator(mode="after")
    def _require_small_signatures(self) -> Self:
        # The signatures of a shard of 20,000 texts are in memory at once.
        if self.bands * self.rows > MAX_SIGNATURE:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows are {self.bands * self.rows:,} hash values per text, and "
                f"{MAX_SIGNATURE:,} fit in memory; lower one of them"
            )
        return self


class EvaluationSet(PathAware):
    """Texts that nobody may train on: mteb tasks by name, or a local folder of Parquet files."""

    name: Name = Field(description="of the set, in tables and messages")
    tasks: tuple[str, ...] = Field(default=(), description="names of mteb tasks and benchmarks")
    path: str | None = Field(
        default=None, description="a folder of Parquet files; a relative path counts from the recipe"
    )
    splits: tuple[str, ...] = Field(default=(), description="splits that are read; all when left out")
    # Only queries are dropped by default: passages of retrieval sets are also in many ordinary corpora.
    queries: Literal["drop", "report"] = Field(
        default="drop", description="what happens to a text that holds a query, a sentence or a classified text"
    )
    documents: Literal["drop", "report"] = Field(
        default="report", description="what happens to a text that holds a passage of retrieval or reranking"
    )

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        if bool(self.tasks) == bool(self.path):
            raise ValueError("give either `tasks`, names of mteb tasks, or `path`, a folder of Parquet files")
        return self


class Decontaminate(ConfigModel):
    """Which evaluation texts the corpus must not hold, and what counts as holding one."""

    sets: tuple[EvaluationSet, ...] = Field(min_length=1, description="evaluation sets, each a table of keys")
    words: Positive = Field(default=8, le=100, description="length of a word sequence")
    containment: Fraction = Field(
        default=0.5, description="share of one text's word sequences that the other has, from which it is contained"
    )
    similarity: Fraction = Field(
        default=0.5, description="Jaccard similarity of words and word pairs from which a text is a near copy"
    )


Cosine = Annotated[float, Field(gt=0, le=1)]


class Semantic(ConfigModel):
    """Texts of the same meaning, found by a teacher's vectors where shared words do not show it."""

    teacher: Name = Field(description="name of the teacher whose vectors are compared")
    duplicates: Cosine | None = Field(
        default=None, description="cosine from which the later of two training texts is not trained on"
    )
    suspects: Cosine | None = Field(
        default=None, description="cosine to an evaluation text from which a text is listed; nothing is dropped"
    )

    @model_validator(mode="after")
    def _require_a_purpose(self) -> Self:
        if self.duplicates is None and self.suspects is None:
            raise ValueError("set `duplicates`, e.g. to 0.95, or `suspects`, e.g. to 0.9, or both")
        return self


class Augment(ConfigModel):
    """Texts made of other texts, as in section 3.2 of arXiv 2412.19048.

    A text that is cut or shuffled is replaced by what is made of it.

    References:
        Jasper and Stella, arXiv 2412.19048, section 3.2.
    """

    cut: Fraction = Field(
        default=0.0, description="share of documents that are cut into texts of 1 to `max_sentences` sentences"
    )
    max_sentences: Positive = Field(default=10, le=10_000, description="sentences of such a text at most")
    shuffle: Fraction = Field(default=0.0, description="share of texts whose words are shuffled")


class CorpusSettings(ConfigModel):
    """Where texts come from, which are kept, and how they are split."""

    sources: tuple[Source, ...] = Field(min_length=1, description="a list; each has a `kind`")
    clean: Clean = Field(default=Clean(), description="how texts are repaired, and which are kept")
    deduplicate: Deduplicate | None = Field(
        default=Deduplicate(), description="what counts as a near copy; `null` keeps near copies"
    )
    decontaminate: Decontaminate | None = Field(
        default=None, description="evaluation texts that the corpus must not hold"
    )
    augment: Augment = Field(default=Augment(), description="texts made of other texts")
    semantic: Semantic | None = Field(default=None, description="texts of the same meaning, by a teacher's vectors")
    dev: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="share of texts that choose a checkpoint"
    )
    test: Fraction = Field(default=0.1, description="share of texts that no model sees before evaluation")

    @model_validator(mode="after")
    def _require_training_texts(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev} and test {self.test} leave no texts to train on; lower them")
        names = [source.name for source in self.sources]
        # Names are the keys of shards, of the mix and of the tables, so two sources cannot share one.
        if twice := doubled(names):
            raise ValueError(f"two sources are named {twice[0]!r}; each needs a name of its own")
        if self.semantic and self.semantic.suspects and not self.decontaminate:
            raise ValueError("semantic.suspects needs evaluation texts; name their sets in `decontaminate`")
        return self

    def splits(self) -> dict[str, float]:
        """The share of each split that is to have texts."""
        shares = {"train": 1 - self.dev - self.test, "dev": self.dev, "test": self.test}
        return {split: share for split, share in shares.items() if share}
