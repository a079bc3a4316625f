"""The recipe's part on texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from stella_assets.core.config import ConfigModel, Fraction, Name, PathAware, Positive

Role = Literal["document", "query"]


class Source(PathAware):
    """What every source of texts says of itself. An earlier source keeps a text that two have."""

    name: Name
    licence: str
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    limit: Positive | None = Field(default=None, description="texts kept, those whose hash is smallest")


class PythonDocs(Source):
    """Docstrings of the standard library (`python`) and of installed distributions, parsed and never imported."""

    kind: Literal["python_docs"]
    licence: str = "the licence of each distribution"
    packages: tuple[str, ...] = ("python",)
    first_sentence_queries: bool = Field(default=True, description="also take first sentences, as queries")


class Columns(ConfigModel):
    """Where a row keeps what: a column, or a dotted path into a nested one."""

    text: tuple[str, ...] = Field(default=("text",), min_length=1, description="several are joined by a line break")
    section: str | None = None
    licence: str | None = None
    role: str | None = None

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class FileSource(Source):
    """Files by path or glob, or a folder with all files of the kind in it."""

    path: str
    role: Role = "document"
    max_malformed: Fraction = Field(default=0.01, description="share of rows, and of files, that may be malformed")


class Parquet(FileSource):
    """Parquet files."""

    kind: Literal["parquet"]
    columns: Columns = Columns()


class JsonLines(FileSource):
    """JSON Lines files, one object a line; also compressed with gzip or zstd."""

    kind: Literal["jsonl"]
    columns: Columns = Columns()
    encoding: str = "utf-8"


class Csv(FileSource):
    """Delimited files with a header; also compressed with gzip or zstd."""

    kind: Literal["csv"]
    columns: Columns = Columns()
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"


class Text(FileSource):
    """Plain text files; a text is a line, a paragraph or a whole file. Also compressed with gzip or zstd."""

    kind: Literal["text"]
    unit: Literal["line", "paragraph", "file"] = "paragraph"
    encoding: str = "utf-8"


class LanceTable(Source):
    """A table in the Lance format, at one version."""

    kind: Literal["lance"]
    path: str
    version: Positive | None = Field(
        default=None, description="the newest when left out; the manifest says which it was"
    )
    columns: Columns = Columns()
    role: Role = "document"
    max_malformed: Fraction = 0.01


class HuggingFace(Source):
    """A data set of the Hugging Face hub, streamed."""

    kind: Literal["huggingface"]
    dataset: str
    revision: str
    config: str | None = None
    dataset_split: str = "train"
    columns: Columns = Columns()
    role: Role = "document"
    max_malformed: Fraction = 0.01
    limit: Positive = Field(description="texts read from the stream")


class Rules(ConfigModel):
    """What a text must be to be kept."""

    min_chars: Positive = 20
    max_chars: Positive = 4000
    min_tokens: Positive | None = Field(default=None, description="of the student's tokenizer")
    max_tokens: Positive | None = None
    min_letters: Fraction = Field(default=0.4, description="share of letters among characters that are no blanks")
    max_repetition: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="share of three-word sequences that the text has said before"
    )

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self


class QueryRules(Rules):
    """The same for queries: short ones must survive."""

    min_chars: Positive = 3
    max_chars: Positive = 1000


class Clean(ConfigModel):
    """How texts are repaired, and which are kept."""

    document: Rules = Rules()
    query: QueryRules = QueryRules()
    html: bool = Field(default=True, description="remove tags, and turn entities into the characters they stand for")
    boilerplate: tuple[str, ...] = Field(
        default=(
            r"(all rights reserved|copyright (©|\(c\)).{0,80})",
            r"(accept|we use|this (web)?site uses) (all )?cookies\b.{0,200}",
            r"(share (this|on)|follow us on|tweet this|pin it)\b.{0,60}",
            r"(click here|read more|continue reading|skip to (main )?content|back to top|sign up|log ?in)\b.{0,40}",
            r"(privacy policy|terms (of (use|service)|and conditions))(\s*[|·•-].{0,80})?",
        ),
        description="regular expressions; a line that one describes wholly is removed, whatever its case",
    )
    languages: tuple[str, ...] = Field(default=(), description="ISO 639-1 codes; needs the extra `language`")
    min_language_chars: Positive = Field(default=60, description="shorter texts do not tell their language")

    @field_validator("boilerplate")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        import polars as pl

        for pattern in patterns:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.ComputeError:
                raise ValueError(f"{pattern!r} is no regular expression; correct or remove it") from None
        return patterns


class Deduplicate(ConfigModel):
    """Near copies: MinHash over word sequences, verified by their exact Jaccard similarity."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    words: Positive = Field(default=5, description="length of a word sequence")
    bands: Positive = 20
    rows: Positive = Field(default=5, description="hash values of a band")


class EvaluationSet(PathAware):
    """Texts that nobody may train on: mteb tasks by name, or a local folder of Parquet files."""

    name: Name
    tasks: tuple[str, ...] = ()
    path: str | None = None
    splits: tuple[str, ...] = Field(default=(), description="all when left out")
    queries: Literal["drop", "report"] = "drop"
    documents: Literal["drop", "report"] = Field("report", description="passages of retrieval and reranking")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.tasks) == bool(self.path):
            raise ValueError("give either `tasks`, names of mteb tasks, or `path`, a folder of Parquet files")
        return self


class Decontaminate(ConfigModel):
    """Which evaluation texts the corpus must not hold, and what counts as holding one."""

    sets: tuple[EvaluationSet, ...] = Field(min_length=1)
    words: Positive = Field(default=8, description="length of a word sequence")
    containment: Fraction = Field(default=0.5, description="share of one text's word sequences that the other holds")
    similarity: Fraction = Field(default=0.5, description="Jaccard similarity of words and word pairs: near copies")


Cosine = Annotated[float, Field(gt=0, le=1)]


class Semantic(ConfigModel):
    """Texts that mean the same, by a teacher's vectors: what words alone do not find."""

    teacher: Name
    duplicates: Cosine | None = Field(
        default=None, description="cosine from which the later of two training texts is not trained on"
    )
    suspects: Cosine | None = Field(
        default=None, description="cosine to an evaluation text from which a text is listed; nothing is dropped"
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.duplicates is None and self.suspects is None:
            raise ValueError("set `duplicates`, as to 0.95, or `suspects`, as to 0.9, or both")
        return self


class Augment(ConfigModel):
    """Texts made of texts, as arXiv 2412.19048 describes."""

    cut: Fraction = Field(
        default=0.0, description="share of documents cut into texts of 1 to `max_sentences` sentences"
    )
    max_sentences: Positive = 10
    shuffle: Fraction = Field(default=0.0, description="share of texts whose words are shuffled")


class Corpus(ConfigModel):
    """Where texts come from, which are kept, and how they are split."""

    sources: tuple[
        Annotated[
            PythonDocs | Parquet | JsonLines | Csv | Text | LanceTable | HuggingFace, Field(discriminator="kind")
        ],
        ...,
    ] = Field(min_length=1)
    clean: Clean = Clean()
    deduplicate: Deduplicate | None = Deduplicate()
    decontaminate: Decontaminate | None = None
    augment: Augment = Augment()
    semantic: Semantic | None = None
    dev: Fraction = 0.05
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _leaves_training_texts(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev} and test {self.test} leave no texts to train on; lower them")
        names = [source.name for source in self.sources]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are named {doubled[0]!r}; each needs a name of its own")
        if self.semantic and self.semantic.suspects and not self.decontaminate:
            raise ValueError("semantic.suspects needs evaluation texts; name their sets in `decontaminate`")
        return self
