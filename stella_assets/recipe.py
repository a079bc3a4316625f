"""The recipe: one YAML file that says what to distil, read into closed, typed models."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, model_validator

from stella_assets.manifest import digest

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class RecipeError(ValueError):
    """A recipe that cannot be run, with the file, the key, the value and the remedy."""


class Part(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def settings(self, *exclude: str) -> dict[str, Any]:
        """The part as plain JSON values, without the named keys."""
        return self.model_dump(mode="json", exclude=set(exclude))


class Located(Part):
    """A part with a path, which counts from the recipe's own folder. The digest keeps the path as it was written."""

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _locate(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder", Path())
        return self

    def resolve(self, path: str) -> Path:
        """The path as seen from anywhere."""
        return (self._folder / Path(path).expanduser()).absolute()


class ModelSource(Located):
    """A model in the SentenceTransformers or transformers format: a folder, a hub id, or a packaged one.

    `model` is a folder when it starts with `./`, `../`, `/` or `~`; `package:NAME/FOLDER` lies inside an installed
    Python package; anything else is a hub id, which needs a `revision`.
    """

    model: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether the model comes from a hub."""
        return not self.model.startswith(("./", "../", "/", "~", "package:"))

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.on_hub and not self.revision:
            raise ValueError(
                f"model {self.model!r} is read as a hub id, and those need `revision: <commit>`; "
                f"a folder starts with ./ as in ./{self.model}"
            )
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs `revision` to be a full commit hash of 40 hexadecimal digits")
        return self


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


class TeacherBase(Part):
    """What every teacher says of itself. `weight` scales its unit vector in the concatenation."""

    name: Name
    licence: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    unit_rows: Positive = Field(32_768, description="rows embedded between two commits")


class SentenceTransformersTeacher(TeacherBase, ModelSource):
    """A SentenceTransformers model. `prompts` are put in front of the texts of a role."""

    kind: Literal["sentence_transformers"]
    prompts: dict[Literal["query", "document"], str] = {}
    dense_folder: str | None = Field(None, description="the Dense folder to use instead of the one in modules.json")
    max_length: Positive = Field(512, description="tokens")
    max_batch_tokens: Positive = 4096
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class LsaTeacher(TeacherBase):
    """Latent semantic analysis, TF-IDF and a truncated SVD, fitted on the training texts: a lexical teacher."""

    kind: Literal["lsa"]
    dim: Positive = 256
    max_features: Positive = 20_000
    seed: Annotated[int, Field(ge=0)] = 0


Teacher = Annotated[SentenceTransformersTeacher | LsaTeacher, Field(discriminator="kind")]


class Student(ModelSource):
    """The model to train: a transformers encoder, its pooling, and its heads."""

    keep_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, description="all when left out")
    pooling: Literal["mean", "cls", "lasttoken"] = "mean"
    max_length: Positive = 512
    short_dims: tuple[Positive, ...] = (1024, 512, 256)
    prompts: dict[str, str] = {}
    query_prompts: tuple[str, ...] = Field((), description="prompts put before training queries, by hash of the text")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.short_dims)) < len(self.short_dims):
            raise ValueError(f"short_dims {list(self.short_dims)} names a dimension twice")
        if self.keep_layers is not None and sorted(set(self.keep_layers)) != list(self.keep_layers):
            raise ValueError(f"keep_layers {list(self.keep_layers)} must rise, each layer once, counting from 0")
        if unknown := [name for name in self.query_prompts if name not in self.prompts]:
            raise ValueError(f"query_prompts names {unknown[0]!r}, which `prompts` does not have")
        return self


class LossWeights(Part):
    """Weights of the three losses (arXiv 2412.19048, section 3.2); 0 leaves a loss out."""

    cosine: Weight = 0.0
    similarity: Weight = 0.0
    relative_similarity: Weight = 0.0
    margin: Weight = 0.015

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.cosine or self.similarity or self.relative_similarity):
            raise ValueError("every weight is 0, so nothing would be learnt; give one of the losses a weight")
        return self


class ShortHeadLossWeights(LossWeights):
    """A short head has other dimensions than the teachers, so it has no cosine loss."""

    cosine: Literal[0] = 0


class Stage(Part):
    """One stage of training."""

    train_layers: Annotated[int, Field(ge=0)] | Literal["all"] = Field(description="last encoder layers that train")
    teacher_head: LossWeights
    short_heads: ShortHeadLossWeights | None = None
    batch_texts: Annotated[int, Field(ge=3)] = 128
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    weight_decay: Weight = 0.01
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_every: Positive = Field(100, description="steps between two checkpoints and two dev measurements")


TaskKind = Literal["retrieval", "classification", "pair_classification"]


class Evaluation(Part):
    """mteb tasks built from the corpus' test split."""

    tasks: tuple[TaskKind, ...] | None = Field(
        None, min_length=1, description="left out: all that the corpus can serve"
    )
    max_documents: Positive = Field(1000, description="test documents that tasks are built from")
    query_prompt: str | None = Field(None, description="the student's prompt for retrieval queries, by name")


class Release(Part):
    """The published model folder."""

    dimension: Positive
    licence: str


RESERVED_NAMES = frozenset({"artefacts", "lancedb", "locks", "runs", "history", "schedules", "storage", "logs"})


class Recipe(Part):
    """Everything that decides what is distilled."""

    name: Name
    description: str
    seed: Annotated[int, Field(ge=0)] = 0
    corpus: Corpus
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    student: Student
    stages: tuple[Stage, ...] = Field(min_length=1)
    evaluation: Evaluation
    release: Release

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is a folder of STELLA_HOME; choose another")
        names = [teacher.name for teacher in self.teachers]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two teachers are named {doubled[0]!r}; each needs a name of its own")
        prompt = self.evaluation.query_prompt
        if prompt is not None and prompt not in self.student.prompts:
            raise ValueError(f"evaluation.query_prompt {prompt!r} is none of student.prompts")
        if not any(stage.short_heads for stage in self.stages) and self.release.dimension in self.student.short_dims:
            raise ValueError(
                f"release.dimension {self.release.dimension}: no stage trains short_heads, so it is untrained"
            )
        return self

    def seed_of(self, *stream: str) -> int:
        """The seed of a named random stream; streams do not disturb one another."""
        return int(digest([self.seed, *stream])[:8], 16)

    @property
    def digest(self) -> str:
        """Digest of what the recipe says; comments and order of keys do not count."""
        return digest(self.model_dump(mode="json"))


class _Loader(yaml.SafeLoader):
    """YAML without keys that silently replace earlier ones."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: The file is missing, is no YAML, or says something impossible.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe. Give a YAML file or a name from recipes/.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}. Save the recipe as UTF-8.") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML. {error}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this is {type(raw).__name__}.")
    try:
        return Recipe.model_validate(raw, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        lines = [f"{path}: {_explain(item)}" for item in error.errors()]
        raise RecipeError("\n".join(lines)) from None


def _explain(item: Any) -> str:
    """One pydantic error as: key path, what is wrong, the value, the remedy."""
    kinds = {"python_docs", "parquet", "jsonl", "text", "huggingface", "sentence_transformers", "lsa"}
    where = ".".join(str(part) for part in item["loc"] if part not in kinds) or "recipe"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(item["loc"][-1]), _all_keys(Part), n=1)
        hint = f"Did you mean `{close[0]}`?" if close else "Remove it; docs/recipe.md lists the keys."
        return f"{where}: there is no such key. {hint}"
    if item["type"] == "missing":
        return f"{where}: this key is required. Add it; docs/recipe.md says what it means."
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    shown = f" (value: {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}."


def _all_keys(part: type[Part]) -> set[str]:
    return set(part.model_fields).union(*(_all_keys(child) for child in part.__subclasses__()))
