"""The environments of a workspace: found by content, or made where a person allowed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stella_assets.core.environments.interpreters import find_interpreter
from stella_assets.core.environments.making import damage, make, program_of
from stella_assets.core.environments.record import content_key, this_platform
from stella_assets.core.environments.requirements import Requirement
from stella_assets.core.environments.settings import EnvironmentConfig
from stella_assets.core.errors import UserError
from stella_assets.core.present import counted
from stella_assets.storage.locks import inherited_lock
from stella_assets.storage.workspace import Workspace

FLAG = "--allow-environments"
VARIABLE = "STELLA_ALLOW_ENVIRONMENTS"


class EnvironmentNotAllowedError(UserError):
    """An environment is needed that does not exist, and nobody allowed to make one."""


@dataclass(frozen=True)
class Environment:
    """A Python environment, made or not.

    Attributes:
        folder: Where it lies or will lie, named by its content.
        version: Of Python.
        requirements: All that is installed in it.
    """

    folder: Path
    version: str
    requirements: tuple[Requirement, ...]

    @property
    def program(self) -> Path:
        """Its interpreter."""
        return program_of(self.folder)

    def damage(self) -> str | None:
        """What is wrong with it, in words; None where it is whole."""
        return damage(self.folder, self.version)

    def __str__(self) -> str:
        return f"Python {self.version} with {', '.join(map(str, self.requirements))}"


@dataclass(frozen=True)
class Environments:
    """Finds environments and makes them.

    Attributes:
        workspace: They are kept in its folder `environments/`; None where none can be made.
        allowed: Whether a person allowed to make them: to install packages means to run their code later.
        variables: Environment variables that processes in an environment may see, e.g. `PATH`.

    Example:
        >>> Environments(workspace, allowed=True).require(config, "teacher 'old'").program
    """

    workspace: Workspace | None = None
    allowed: bool = False
    variables: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What another process needs to find these environments. It must not make any: this one has asked a person."""
        root = None if self.workspace is None else str(self.workspace.root.absolute())
        return {"root": root, "variables": self.variables}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """The environments that `to_json` wrote."""
        root = written["root"]
        variables = tuple((name, value) for name, value in written["variables"])
        return cls(None if root is None else Workspace(Path(root)), variables=variables)

    def locate(self, config: EnvironmentConfig) -> Environment:
        """An environment by its content, made or not.

        Raises:
            UserError: A requirement is not pinned, or there is no workspace to keep it in.
        """
        if self.workspace is None:
            raise UserError(
                "environment: there is no folder that it could be kept in.", "Give `Compute` the `environments`."
            )
        requirements, version = config.read(), config.python_version
        name = content_key([each.line for each in requirements], version, this_platform())
        folder = self.workspace.environments.absolute() / name  # absolute: its processes work in other folders
        return Environment(folder, version, requirements)

    def require(
        self, config: EnvironmentConfig, owner: str, say: Callable[[str], None] = lambda _line: None
    ) -> Environment:
        """An environment that is whole; it is made if it is not, once, also by several processes at the same time.

        Args:
            config: What is in it.
            owner: Who needs it, for messages, e.g. `teacher 'old'`.
            say: Told what is done, for people.

        Raises:
            EnvironmentNotAllowedError: It has to be made, and that was not allowed.
            UserError: It cannot be made.
        """
        environment = self.locate(config)
        if (reason := environment.damage()) is None:
            return environment
        self._require_allowed(environment, owner, reason)
        assert self.workspace is not None, "it was located in one"
        name = f"environments/{environment.folder.name}"
        waiting = f"{owner}: another run is making its environment; waiting for it."
        with inherited_lock(self.workspace, name, lambda: say(waiting)) as descriptor:
            # Asked again: another run may have made it meanwhile.
            if (reason := environment.damage()) is None:
                return environment
            packages = counted(len(environment.requirements), "package")
            say(f"{owner}: environment {environment.folder} {reason}; it is made with {packages}, pinned.")
            interpreter = find_interpreter(config.interpreter)
            make(environment.folder, interpreter, environment.version, environment.requirements, descriptor)
        say(f"{owner}: environment {environment.folder} is made.")
        return environment

    def check(self, config: EnvironmentConfig, owner: str) -> None:
        """Make sure that an environment exists or can be made; it is not made here.

        Raises:
            EnvironmentNotAllowedError: It has to be made, and that was not allowed.
            UserError: Its requirements cannot be used, or this machine lacks its Python.
        """
        environment = self.locate(config)
        if reason := environment.damage():
            self._require_allowed(environment, owner, reason)
            find_interpreter(config.interpreter)

    def state(self, config: EnvironmentConfig) -> str:
        """What is to be said of an environment: what is in it, where it is, whether it exists. It is not made."""
        environment = self.locate(config)
        reason = environment.damage()
        allowed = "allowed" if self.allowed else f"not allowed without {FLAG}"
        state = f"{reason}, and making it is {allowed}" if reason else "exists"
        # A list in a file is long, and several teachers may share it.
        listed = isinstance(config.requirements, str)
        packages = f"{counted(len(environment.requirements), 'package')} of {config.requirements}"
        what = f"Python {environment.version} with {packages}" if listed else str(environment)
        return f"{what}; {environment.folder} {state}"

    def _require_allowed(self, environment: Environment, owner: str, reason: str) -> None:
        if not self.allowed:
            raise EnvironmentNotAllowedError(
                f"{owner}: needs an environment of its own ({environment}). {environment.folder} {reason}, and making "
                "it is not allowed here.",
                f"If you trust these packages, run `stella run` with {FLAG}, or set {VARIABLE}=1 for the UI, schedules "
                "and other commands.",
            )
