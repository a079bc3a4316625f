"""The recipe's part on teachers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stella_assets.core.config import ConfigModel, ModelSource, Name, Positive


class TeacherBase(ConfigModel):
    """What every teacher says of itself. `weight` scales its unit vector in the concatenation."""

    name: Name
    licence: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    unit_rows: Positive = Field(32_768, description="rows embedded between two commits")


class SentenceTransformersTeacher(TeacherBase, ModelSource):
    """A SentenceTransformers model. `prompts` are put in front of the texts of a role."""

    kind: Literal["sentence_transformers"]
    prompts: dict[Literal["query", "document"], str] = Field({}, description="put before texts, by role")
    evaluation_prompts: dict[str, str] = Field(
        {}, description="put before the texts of tasks, by mteb's keys; `{instruction}` is the task's"
    )
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
