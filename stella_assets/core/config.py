"""What every part of a recipe is: closed, typed and never changed after reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class RecipeError(ValueError):
    """A recipe that cannot be run, with the file, the key, the value and the remedy."""


class ConfigModel(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def settings(self, *exclude: str) -> dict[str, Any]:
        """The part as plain JSON values, without the named keys."""
        return self.model_dump(mode="json", exclude=set(exclude))


class PathAware(ConfigModel):
    """A part with a path, which counts from the recipe's own folder. The digest keeps the path as it was written."""

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _locate(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder", Path())
        return self

    def resolve(self, path: str) -> Path:
        """The path as seen from anywhere."""
        return (self._folder / Path(path).expanduser()).absolute()


class ModelSource(PathAware):
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
