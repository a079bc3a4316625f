"""The recipe's part on texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stella_assets.recipe.part import Fraction, Located, Name, Part, Positive


class Source(Located):
    """What every source of texts says of itself."""

    name: Name
    licence: str
    limit: Positive | None = Field(None, description="texts kept, those whose hash is smallest")


class PythonDocs(Source):
    """Docstrings of the standard library (`python`) and of installed distributions, parsed and never imported."""

    kind: Literal["python_docs"]
    licence: str = "the licence of each distribution"
    packages: tuple[str, ...] = ("python",)
    first_sentence_queries: bool = Field(True, description="also take first sentences, as queries")


class FileSource(Source):
    """Files by path or glob."""

    path: str
    role: Literal["document", "query"] = "document"


class Parquet(FileSource):
    """Parquet files with a text column."""

    kind: Literal["parquet"]
    text_column: str = "text"


class JsonLines(FileSource):
    """JSON Lines files, one object a line, with a text key."""

    kind: Literal["jsonl"]
    text_column: str = "text"


class Text(FileSource):
    """Plain text files, UTF-8; a text is a line, a paragraph or a whole file."""

    kind: Literal["text"]
    unit: Literal["line", "paragraph", "file"] = "paragraph"


class HuggingFace(Source):
    """A data set of the Hugging Face hub, streamed."""

    kind: Literal["huggingface"]
    dataset: str
    revision: str
    config: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    role: Literal["document", "query"] = "document"
    limit: Positive = Field(description="texts read from the stream")


class Corpus(Part):
    """Where texts come from, which are kept, and how they are split."""

    sources: tuple[
        Annotated[PythonDocs | Parquet | JsonLines | Text | HuggingFace, Field(discriminator="kind")], ...
    ] = Field(min_length=1)
    min_chars: Positive = 20
    max_chars: Positive = 4000
    dev: Fraction = 0.05
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _leaves_training_texts(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev} and test {self.test} leave no texts to train on; lower them")
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} is above max_chars {self.max_chars}")
        names = [source.name for source in self.sources]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are named {doubled[0]!r}; each needs a name of its own")
        return self
