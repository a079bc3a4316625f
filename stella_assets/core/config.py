"""Configuration models: closed, typed, and never changed after reading."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from stella_assets.core.errors import UserError

MOST = 10**12
"""Of anything that is counted. Larger numbers are mistakes, and libraries cannot hold some of them."""


def is_number(word: str) -> bool:
    """Whether a word is a whole number in ASCII digits. `isdigit` alone is true of `²`, which `int` refuses."""
    return word.isascii() and word.isdigit()


def _require_countable(value: int) -> int:
    if value > MOST:
        raise ValueError(f"more than {MOST:,}; give a smaller number")
    return value


# File systems allow 255 bytes, and names are parts of names of files and tables.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0), AfterValidator(_require_countable)]
Dimension = Annotated[int, Field(gt=0, le=65_536)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What numpy and scikit-learn accept."""
Weight = Annotated[float, Field(ge=0, le=1_000_000)]
"""Far above what is useful, and far below what float32 holds: the sum of the losses stays finite."""
Gain = Annotated[float, Field(ge=-100, le=100)]
"""A difference of two scores in percent. What needs a larger one can never pass."""


def _require_past(day: date) -> date:
    # In the time zone where days begin first, so that nobody's today is refused.
    if day > (datetime.now(UTC) + timedelta(hours=14)).date():
        raise ValueError("this day is in the future; give the day on which it was done, as YYYY-MM-DD")
    return day


PastDay = Annotated[date, AfterValidator(_require_past)]
"""A day on which somebody did something."""


def doubled(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, in alphabetical order."""
    return sorted({name for name in names if names.count(name) > 1})


class ConfigModel(BaseModel):
    """A part of a recipe. Unknown keys are errors; values never change after reading."""

    # NaN and infinity have no JSON, and NaN would differ from itself when settings are compared. Errors of pydantic
    # show no input: somebody may have written a key there.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

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

        Raises:
            UserError: No file can have this path.
        """
        try:
            resolved = (self._folder / Path(path).expanduser()).absolute()
            resolved.is_file()  # raises where the system refuses the path itself
        except RuntimeError:
            raise UserError(f"{path}: this computer has no such user.", "Write the whole path.") from None
        except OSError as error:
            raise UserError(f"{path:.100}: cannot be a path ({error.strerror}).", "Correct the path.") from None
        return resolved

    def with_values(self, **values: object) -> Self:
        """A copy with some values replaced; its paths still count from the same folder."""
        # `model_copy` does not run validators, so the folder has to be carried over.
        copy = self.model_copy(update=values)
        copy._folder = self._folder
        return copy


COMMIT = r"[0-9a-f]{40}"
"""A full commit hash. A branch or tag can be moved to other code later; a commit cannot."""
SETTLED = {
    "cache_dir", "code_revision", "config", "device", "device_map", "dtype", "force_download",
    "ignore_mismatched_sizes", "local_files_only", "model_max_length", "output_loading_info", "proxies",
    "quantization_config", "revision", "state_dict", "subfolder", "token", "torch_dtype", "trust_remote_code",
    "use_auth_token",
}  # fmt: skip
"""Arguments of `from_pretrained` that other settings, the environment or the loader decide."""


ELSEWHERE = ("./", "../", "/", "~", "package:")
"""Begins a `model` that is a folder, whether it exists or not, or a part of a package."""


def _is_empty(value: object) -> bool:
    return not value


class ModelSource(PathAware):
    """A model in the format of SentenceTransformers or transformers: a folder, a hub id, or part of a package.

    `model` is a folder when it starts with `./`, `../`, `/` or `~`, and without a `revision` also when there is such a
    folder. `package:NAME/FOLDER` is a folder inside an installed Python package. Anything else is a hub id, which needs
    a `revision`.

    Code that comes with a model is run only where the recipe trusts it, and only the code that it pins: a hub's by
    `revision`, a folder's by `code_digest`, and that of another repository, which the model's configuration may name,
    by `code_revision`. `auto_map: {}` in `config_kwargs` loads the class that the installed libraries have for the
    `model_type` instead, and in `tokenizer_kwargs` their tokenizer.

    Example:
        >>> ModelSource(model="./models/mine").on_hub
        False
    """

    model: str = Field(description="a folder, a hub id, or `package:NAME/FOLDER`")
    revision: str | None = Field(default=None, description="commit of the hub; required for a hub id")
    trust_remote_code: bool = Field(
        default=False,
        description="run code that comes with the model; needs a full commit as `revision`, or `code_digest`",
    )
    # Excluded where they are not given: what they say enters an identity only with those who use them.
    code_digest: str | None = Field(
        default=None,
        description="digest of the code in the model's folder; `stella validate` prints it",
        exclude_if=_is_empty,
    )
    code_revision: str | None = Field(
        default=None,
        description="full commit of the other repository whose code the model's `auto_map` names",
        exclude_if=_is_empty,
    )
    config_kwargs: dict[str, JsonValue] = Field(
        default={}, description="values of the model's configuration to replace", exclude_if=_is_empty
    )
    model_kwargs: dict[str, JsonValue] = Field(
        default={}, description="more arguments of the model's `from_pretrained`", exclude_if=_is_empty
    )
    tokenizer_kwargs: dict[str, JsonValue] = Field(
        default={},
        description="more arguments of the tokenizer's `from_pretrained`",
        exclude_if=_is_empty,
    )

    @model_validator(mode="before")
    @classmethod
    def _recognise_folder(cls, given: Any, info: ValidationInfo) -> Any:
        model = given.get("model") if isinstance(given, Mapping) else None
        if not isinstance(model, str) or not model or model.startswith(ELSEWHERE) or given.get("revision"):
            return given
        # A hub id without a revision is refused, so no recipe changes its meaning when a folder appears. Not
        # `Path.is_dir`, which raises for names that no file can have.
        found = os.path.isdir(Path((info.context or {}).get("folder", ""), model))  # noqa: PTH112
        return {**given, "model": f"./{model}"} if found else given

    @property
    def on_hub(self) -> bool:
        """Whether the model comes from a hub."""
        return not self.model.startswith(ELSEWHERE)

    @model_validator(mode="after")
    def _require_pin(self) -> Self:
        if self.on_hub and not self.revision:
            raise ValueError(
                f"model {self.model!r} is read as a hub id, and those need `revision: <commit>`; "
                f"there is no folder of this name in {self.resolve('.')}"
            )
        if self.code_revision is not None and not re.fullmatch(COMMIT, self.code_revision):
            raise ValueError("code_revision needs to be a full commit hash of 40 hexadecimal digits")
        if not self.trust_remote_code and (self.code_digest or self.code_revision):
            raise ValueError("code_digest and code_revision pin code, which only runs with `trust_remote_code: true`")
        if self.on_hub and self.code_digest:
            raise ValueError("code_digest is for a folder; `revision` pins the code of a model of the hub")
        if self.on_hub and self.trust_remote_code and not re.fullmatch(COMMIT, self.revision or ""):
            raise ValueError("trust_remote_code needs `revision` to be a full commit hash of 40 hexadecimal digits")
        return self

    @model_validator(mode="after")
    def _refuse_settled_arguments(self) -> Self:
        for setting in ("config_kwargs", "model_kwargs", "tokenizer_kwargs"):
            # Any other map would name code that nothing pins.
            if getattr(self, setting).get("auto_map", {}) != {}:
                raise ValueError(f"{setting}.auto_map can only be {{}}, which loads the libraries' own class")
            if settled := sorted(SETTLED & set(getattr(self, setting))):
                raise ValueError(f"{setting} has {settled[0]!r}, which another setting or the loader decides")
        return self
