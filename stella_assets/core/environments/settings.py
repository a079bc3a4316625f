"""The part of a recipe that describes an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from stella_assets.core.config import PathAware, doubled
from stella_assets.core.environments.interpreters import VERSION, python_version
from stella_assets.core.environments.requirements import Requirement, parse_requirements
from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import digest

HOW = (
    "Write the packages that are needed into a file and let `uv pip compile --generate-hashes FILE` or "
    "`pip-compile --generate-hashes FILE` pin them and everything that they need."
)


class EnvironmentConfig(PathAware):
    """A Python environment: pinned requirements, and the version of Python.

    Example:
        >>> EnvironmentConfig(requirements="old.txt", python="3.11").python_version
        '3.11'
    """

    requirements: tuple[str, ...] | str = Field(
        description="all packages, each `name==version --hash=sha256:...`, or a file of them, as "
        "`uv pip compile --generate-hashes` writes it"
    )
    python: str | None = Field(
        None, description='its version, e.g. `"3.11"`, or the path of an interpreter; by default this Python\'s version'
    )

    @field_validator("requirements")
    @classmethod
    def _require_pinned(cls, requirements: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not isinstance(requirements, str):
            try:
                parse_requirements(requirements)
            except ValueError as error:
                raise ValueError(f"{error}. {HOW.removesuffix('.')}") from None
        return requirements

    @field_validator("python", mode="before")
    @classmethod
    def _require_text(cls, python: Any) -> Any:
        if isinstance(python, float):
            raise ValueError('write the version in quotes, e.g. "3.10"; without them it is the number 3.1')
        if isinstance(python, str) and "/" not in python and not VERSION.fullmatch(python):
            raise ValueError('is neither a version, e.g. "3.11", nor the path of an interpreter')
        return python

    @property
    def interpreter(self) -> str | None:
        """The version of Python, or the absolute path of an interpreter; None for this Python's version."""
        return str(self.resolve(self.python)) if self.python and "/" in self.python else self.python

    @property
    def python_version(self) -> str:
        """The version of Python, e.g. `3.11`.

        Raises:
            UserError: `python` is a path, and there is no interpreter.
        """
        return python_version(self.interpreter)

    def read(self) -> tuple[Requirement, ...]:
        """The requirements that hold on this machine; a list for several platforms has others, too.

        Raises:
            UserError: The file does not exist, one of its requirements is not pinned, or a package is listed twice.
        """
        listed = self._listed()
        found = tuple(each for each in listed if each.holds(self.python_version))
        if twice := doubled([each.name for each in found]):
            lines = " and ".join(str(each) for each in found if each.name == twice[0])
            raise UserError(
                f"environment.requirements: {lines} both hold for Python {self.python_version} on this machine.",
                "Keep one of them, or add markers of which one holds.",
            )
        return found

    def _listed(self) -> tuple[Requirement, ...]:
        if not isinstance(self.requirements, str):
            return parse_requirements(self.requirements)
        path = self.resolve(self.requirements)
        try:
            return parse_requirements(_lines(path))
        except ValueError as error:
            raise UserError(f"{path}: {error}.", HOW) from None

    def described(self) -> dict[str, Any]:
        """What vectors depend on: the versions of Python and of all packages, known before it is made."""
        # Not the hashes: a version has one file per platform, and more of them may be added to the list.
        return {"python": self.python_version, "packages": sorted({str(each) for each in self.read()})}

    def digest(self) -> str:
        """Names what `described` says."""
        return digest(self.described())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            f"{path}: there is no such file of requirements.",
            "Correct `environment.requirements`; a relative path counts from the recipe's folder.",
        ) from None
    except OSError as error:  # no permission, or a link that leads to itself
        raise UserError(
            f"{path}: the file of requirements cannot be read ({error.strerror}).",
            "Look at `environment.requirements`.",
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}.", "Save it as UTF-8.") from None
