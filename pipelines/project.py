"""The project: a folder with `dagster.yaml` and `recipes/`, found from the current folder upwards."""

from __future__ import annotations

from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.storage.files import link_atomically
from stella_assets.storage.workspace import Workspace

INSTANCE_FILE = "dagster.yaml"
POSTGRES_FILE = "deploy/dagster.yaml"
"""Used instead of `INSTANCE_FILE` when Dagster keeps its runs in Postgres."""
SCAFFOLD = Path(__file__).parent / "scaffold" / "files"
"""What `stella init` writes."""


class NoProjectError(UserError):
    """The current folder is not in a project."""


def find_project(folder: Path) -> Path | None:
    """The nearest project: this folder, or one above it.

    Args:
        folder: Where to begin, an absolute path.
    """
    return next((each for each in (folder, *folder.parents) if is_project(each)), None)


def is_project(folder: Path) -> bool:
    """Whether a folder has a `dagster.yaml` and recipes."""
    return (folder / INSTANCE_FILE).is_file() and (folder / "recipes").is_dir()


def require_current_folder() -> None:
    """Refuse to work where relative paths mean nothing.

    Raises:
        NoProjectError: The current folder was removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise NoProjectError("the current folder was removed.", "Go to a folder that exists.") from None


def project_root() -> Path:
    """The project that the current folder is in.

    Raises:
        NoProjectError: It is in none.
    """
    found = find_project(Path.cwd())
    if found is None:
        raise NoProjectError(
            f"{Path.cwd()}: neither this folder nor one above it is a project, with {INSTANCE_FILE} and recipes/.",
            "Go to your project, or run `stella init DIR` to write one.",
        )
    return found


def recipe_files() -> list[Path]:
    """The recipes of the project, by name.

    Raises:
        NoProjectError: The current folder is in no project.
    """
    return sorted((project_root() / "recipes").glob("*.yaml"))


def link_instance_file(workspace: Workspace, *, postgres: bool) -> None:
    """Let the workspace have the `dagster.yaml` that counts: the project's, or the one of this package.

    A link, so that there is one file to change. A file that somebody put there instead of it counts.

    Args:
        workspace: Its folder exists.
        postgres: Whether Dagster keeps its runs in Postgres.
    """
    name = POSTGRES_FILE if postgres else INSTANCE_FILE
    project, link = find_project(Path.cwd()), workspace.root / INSTANCE_FILE
    own = (project or SCAFFOLD) / name
    # A project has a file for Postgres only where it changes something in it.
    target = own if own.is_file() else SCAFFOLD / name
    if (link.is_symlink() or not link.exists()) and link.resolve() != target.resolve():
        link_atomically(link, target)
