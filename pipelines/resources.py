"""Where the project and its state are. The only place that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

from storage.workspace import Workspace


def project_root() -> Path:
    """The folder with `dagster.yaml`: here or above, else the checkout that this package is part of."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dagster.yaml").is_file() and (folder / "recipes").is_dir():
            return folder
    return Path(__file__).resolve().parent.parent


def workspace() -> Workspace:
    """The folder of all state: `STELLA_HOME`, or `var/` in the project; vectors may lie elsewhere: `STELLA_VECTORS`."""
    root = Path(os.environ.get("STELLA_HOME") or project_root() / "var").absolute()
    vectors = os.environ.get("STELLA_VECTORS")
    if vectors and "://" not in vectors:
        vectors = str(Path(vectors).expanduser().absolute())
    return Workspace(root, vectors or None)


def launch_command() -> str:
    """`STELLA_LAUNCH`, what stages start with: `accelerate launch --num_processes 2`; empty to train in the run."""
    return os.environ.get("STELLA_LAUNCH", "")


def parallel_steps() -> int:
    """`STELLA_PARALLEL`: steps of a run at once, each in a process of its own; 1 for all in one process.

    Raises:
        ValueError: It is no number above 0.
    """
    words = os.environ.get("STELLA_PARALLEL", "1")
    if not words.isdigit() or int(words) < 1:
        raise ValueError(f"STELLA_PARALLEL {words!r}: say how many steps may run at once, as 4.")
    return int(words)


def instance_folder() -> Path:
    """The folder whose `dagster.yaml` counts: with `STELLA_POSTGRES` it is `deploy/`."""
    return project_root() / "deploy" if os.environ.get("STELLA_POSTGRES") else project_root()


def check_postgres() -> None:
    """Make sure that the database of `STELLA_POSTGRES`, if it is set, is there; the address is never shown whole.

    Raises:
        ValueError: The address is none, a package is missing, or nothing answers there.
    """
    address = os.environ.get("STELLA_POSTGRES")
    if not address:
        return
    import sqlalchemy as sa

    form = "postgresql+psycopg2://user:password@host/database"
    try:
        url = sa.make_url(address)
        if url.drivername != "postgresql+psycopg2":
            raise ValueError(f"STELLA_POSTGRES: begins with {url.drivername}://. Say {form}.")
        sa.create_engine(url, connect_args={"connect_timeout": 10}).connect().close()
    except sa.exc.ArgumentError:
        raise ValueError(f"STELLA_POSTGRES: is no address of a database. Say {form}.") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f"STELLA_POSTGRES: needs the package {error.name}. Run `pip install -c constraints.txt -e '.[postgres]'`."
        ) from None
    except sa.exc.OperationalError as error:
        shown = url.render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[0]
        raise ValueError(f"STELLA_POSTGRES: nothing answers at {shown} ({reason}). Start it, or correct it.") from None


def recipe_files() -> list[Path]:
    """The recipes of the project, by name."""
    return sorted((project_root() / "recipes").glob("*.yaml"))


def prepare_environment() -> Workspace:
    """Point Dagster at the project's `dagster.yaml` and its storage at our workspace, and quieten libraries.

    Raises:
        ValueError: `STELLA_HOME` cannot be a folder.
    """
    where = workspace()
    try:
        where.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{where.root}: cannot be used as STELLA_HOME ({error.strerror}). Set STELLA_HOME to a folder of your own."
        ) from None
    os.environ["STELLA_HOME"] = str(where.root)
    os.environ["DAGSTER_HOME"] = str(instance_folder())
    os.environ.setdefault("LANCE_LOG", "error")
    os.environ.setdefault("LANCEDB_LOG", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return where
