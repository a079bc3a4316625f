"""Configuration models: closed, typed, and never changed after reading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


def doubled(names: Sequence[str]) -> list[str]:
    """The names that are there more than once, in alphabetical order."""
    return sorted({name for name in names if names.count(name) > 1})


class ConfigModel(BaseModel):
    """A part of a recipe. Unknown keys are errors; values never change after reading."""

    # NaN and infinity have no JSON, and NaN would differ from itself when settings are compared.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def settings(self, *exclude: str) -> dict[str, Any]:
        """The values as plain JSON, as they enter the identity of a step.

        Args:
            exclude: Keys that do not decide the output, e.g. how many processes compute it.

        Returns:
            Values by key, defaults included.
        """
        return self.model_dump(mode="json", exclude=set(exclude))


class PathAware(ConfigModel):
    """A part with a path. Relative paths count from the recipe's folder; digests keep the path as it was written."""

    # Private, so that it is not part of `settings`: the same recipe in another folder keeps its digests.
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _remember_folder(self, info: ValidationInfo) -> Self:
        self._folder = (info.context or {}).get("folder", Path())
        return self

    def resolve(self, path: str) -> Path:
        """The absolute path.

        Args:
            path: As written in the recipe; `~` is the home folder.
        """
        return (self._folder / Path(path).expanduser()).absolute()

    def with_values(self, **values: object) -> Self:
        """A copy with some values replaced; its paths still count from the same folder."""
        # `model_copy` does not run validators, so the folder has to be carried over.
        copy = self.model_copy(update=values)
        copy._folder = self._folder
        return copy


class ModelSource(PathAware):
    """A model in the format of SentenceTransformers or transformers: a folder, a hub id, or part of a package.

    `model` is a folder when it starts with `./`, `../`, `/` or `~`. `package:NAME/FOLDER` is a folder inside an
    installed Python package. Anything else is a hub id, which needs a `revision`.

    Example:
        >>> ModelSource(model="./models/mine").on_hub
        False
    """

    model: str = Field(description="a folder, a hub id, or `package:NAME/FOLDER`")
    revision: str | None = Field(default=None, description="commit of the hub; required for a hub id")
    trust_remote_code: bool = Field(
        default=False, description="run code that comes with the model; needs a full commit as `revision`"
    )

    @property
    def on_hub(self) -> bool:
        """Whether the model comes from a hub."""
        return not self.model.startswith(("./", "../", "/", "~", "package:"))

    @model_validator(mode="after")
    def _require_pin(self) -> Self:
        if self.on_hub and not self.revision:
            raise ValueError(
                f"model {self.model!r} is read as a hub id, and those need `revision: <commit>`; "
                f"a folder starts with ./, e.g. ./{self.model}"
            )
        # A branch or tag can be moved to other code later; a full commit hash cannot.
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs `revision` to be a full commit hash of 40 hexadecimal digits")
        return self
