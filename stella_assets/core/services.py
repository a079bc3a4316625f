"""What work with services outside needs: where answers are kept, and the secrets that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stella_assets.core.errors import UserError
from stella_assets.storage.workspace import Workspace


class MissingSecretError(UserError):
    """An environment variable that a recipe names is not set."""


def _no_secret(_name: str) -> str | None:
    return None


@dataclass(frozen=True)
class Services:
    """Access to services, as the environment of this process gives it.

    Attributes:
        workspace: Keeps what services answered; None where nothing can be kept.
        secret: The value of an environment variable; None where it is not set. It is never shown.
        recipe: Which recipe asks, for the accounts.

    Example:
        >>> Services(workspace, os.environ.get).require_secret("OPENAI_API_KEY", "teacher 'openai_large'")
    """

    workspace: Workspace | None = None
    secret: Callable[[str], str | None] = field(default=_no_secret, repr=False)
    recipe: str = ""

    def require_secret(self, name: str, owner: str) -> str:
        """The value of an environment variable.

        Args:
            name: Of the variable.
            owner: Who needs it, for the message.

        Raises:
            MissingSecretError: It is not set.
        """
        value = self.secret(name)
        if not value:
            raise MissingSecretError(
                f"{owner}: the environment variable {name} is not set, and it holds the key of the service.",
                f"Run `export {name}=...` in the shell that starts the command, or name another variable with `key`.",
            )
        return value

    def require_workspace(self, owner: str) -> Workspace:
        """Where answers are kept.

        Raises:
            UserError: There is no such place.
        """
        if self.workspace is None:
            raise UserError(f"{owner}: there is no folder to keep answers in.", "Give `Compute` the `services`.")
        return self.workspace
