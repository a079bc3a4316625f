"""The environment: where the state is, and what to compute with.

This is the only file that reads environment variables.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from stella_assets.core.config import is_number
from stella_assets.core.devices import Compute, available_threads
from stella_assets.core.engine import ENGINES, Engine, LocalEngine
from stella_assets.core.environments import Environments
from stella_assets.core.errors import UserError
from stella_assets.core.secrets import holds_key
from stella_assets.core.services import Services
from stella_assets.pipelines.project import link_instance_file, project_root
from stella_assets.storage.removal import finish_removals
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    import sqlalchemy as sa

THREAD_VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
"""Libraries read these when they are loaded: BLAS and torch, tokenizers, polars."""
# The libraries' logs and bars would run into the lines that steps print. Telemetry is off by default.
QUIET = {
    "LANCE_LOG": "error",
    "LANCEDB_LOG": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
# A list of what may be seen: whatever else this process has, e.g. tokens and passwords, stays here.
SHARED_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)
"""Environment variables that an encoder in an environment of its own sees."""
_set_here: dict[str, str] = {}
"""What `prepare_libraries` has set, which is not the user's word."""
POSTGRES_FORM = (
    "Write it as postgresql+psycopg2://user:password@host/database, with %40 for @ and %2F for / in the password."
)
# Databases take the first ones for parts of an address or for patterns of names, and cannot open the others.
UNUSABLE = re.compile("[%?*\\\\\\[\\]{}\x00-\x1f\x7f\ud800-\udfff]")


class EnvironmentVariableError(UserError):
    """An environment variable has a value that cannot be used."""


def workspace() -> Workspace:
    """The folder of all state: `STELLA_HOME`, else `var/` in the project. `STELLA_VECTORS` keeps vectors elsewhere.

    Raises:
        NoProjectError: `STELLA_HOME` is not set, and the current folder is not in a project.
        EnvironmentVariableError: One of them begins with the name of a user that there is not, or has a password.
    """
    root = _folder("STELLA_HOME") or project_root() / "var"
    vectors = os.environ.get("STELLA_VECTORS")
    if vectors and "://" in vectors:
        _check_store(vectors)
    elif vectors:
        vectors = str(_folder("STELLA_VECTORS"))
    return Workspace(root, vectors or None)


def _check_store(address: str) -> None:
    """Refuse an address with a password, as every message and record shows the address of the store."""
    try:
        url = urlsplit(address)
        has_secret = url.password is not None or holds_key(dict(parse_qsl(url.query)))
    except ValueError:
        raise EnvironmentVariableError(
            "STELLA_VECTORS: is not an address.", "Write it as s3://bucket/folder, or give a folder."
        ) from None
    if has_secret:
        raise EnvironmentVariableError(
            "STELLA_VECTORS: has a password or a key in it.",
            "Give credentials in variables of their own, e.g. AWS_ACCESS_KEY_ID; see docs/vectors.md.",
        )


def _folder(name: str) -> Path | None:
    """The folder that a variable names; None where it is not set. `~` is the home folder."""
    words = os.environ.get(name)
    try:
        # Absolute, because processes that steps start may work in another folder.
        return Path(words).expanduser().absolute() if words else None
    except RuntimeError:
        raise EnvironmentVariableError(
            f"{name} {words!r}: this computer has no such user.", "Write the whole path."
        ) from None


def launch_command() -> str:
    """`STELLA_LAUNCH`: the command that starts stages; empty to train in the process of the run.

    Raises:
        EnvironmentVariableError: It is not one command.

    Example:
        `accelerate launch --num_processes 2`
    """
    words = os.environ.get("STELLA_LAUNCH", "")
    try:
        shlex.split(words)
    except ValueError:  # e.g. a quotation mark without its pair
        raise EnvironmentVariableError(
            f"STELLA_LAUNCH {words!r}: is not a command, as a shell would read it.",
            "Write it as in a shell, e.g. accelerate launch --num_processes 2",
        ) from None
    return words


def parallel_steps() -> int:
    """`STELLA_PARALLEL`: how many steps of a run work at once, each in a process of its own; 1 for one process.

    Raises:
        EnvironmentVariableError: It is not a whole number above 0.
    """
    return _positive("STELLA_PARALLEL", 1, "Give the number of steps that may run at once, e.g. 4.")


def compute(allow_environments: bool = False) -> Compute:
    """What steps compute with: `STELLA_THREADS` threads of the CPU, and the engine `STELLA_ENGINE`.

    Without `STELLA_THREADS`, `OMP_NUM_THREADS` counts; without both, the CPUs that this process may use.

    Args:
        allow_environments: Whether environments of models may be made, in addition to `STELLA_ALLOW_ENVIRONMENTS`.

    Raises:
        EnvironmentVariableError: A value cannot be used.
    """
    shared = tuple((name, os.environ[name]) for name in SHARED_VARIABLES if name in os.environ)
    environments = Environments(workspace(), allow_environments or _allows_environments(), shared)
    services = Services(workspace(), read_secret)
    return Compute(threads=threads()[0], engine=_engine(), environments=environments, services=services)


def read_secret(name: str) -> str | None:
    """The value of an environment variable whose name a recipe gives, e.g. the key of a service."""
    # Without what an editor or a secret store adds at the end, which no key has.
    return os.environ.get(name, "").strip() or None


def threads() -> tuple[int, str]:
    """How many threads of the CPU one process uses, and where the number comes from.

    Raises:
        EnvironmentVariableError: `STELLA_THREADS` is not a whole number above 0.
    """
    if os.environ.get("STELLA_THREADS"):
        return _positive("STELLA_THREADS", 1, "Give the number of threads of one process, e.g. 8."), "STELLA_THREADS"
    # A list such as `4,2` is valid for OpenMP, but gives no single number; the default counts then.
    words = os.environ.get("OMP_NUM_THREADS", "")
    if is_number(words) and int(words) > 0 and words != _set_here.get("OMP_NUM_THREADS"):
        return int(words), "OMP_NUM_THREADS"
    return available_threads(), "the CPUs that this process may use"


def prepare_libraries() -> None:
    """Limit the threads of libraries that are not loaded yet, and silence their messages.

    What the user has set stays. Call it before anything imports numpy, torch, polars or tokenizers: they read the
    variables once, when they are loaded.

    Raises:
        EnvironmentVariableError: `STELLA_THREADS` is not a whole number above 0.
    """
    # BLAS, tokenizers and polars would otherwise each start as many threads as the machine has cores, also in a
    # container.
    number = str(threads()[0])
    for name in THREAD_VARIABLES:
        if name not in os.environ:
            os.environ[name] = _set_here[name] = number
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def prepare_environment() -> Workspace:
    """Prepare libraries, and let Dagster keep everything in the workspace, as the project's `dagster.yaml` says.

    What killed processes left in the workspace is removed.

    Returns:
        The workspace; its folder exists and can be written.

    Raises:
        NoProjectError: `STELLA_HOME` is not set, and the current folder is not in a project.
        EnvironmentVariableError: `STELLA_HOME` cannot be used as a folder, or `STELLA_THREADS` is not a whole number
            above 0.
    """
    prepare_libraries()
    where = workspace()
    if unusable := UNUSABLE.search(str(where.root)):
        # As Python writes it: a terminal would obey a control character.
        raise EnvironmentVariableError(
            f"STELLA_HOME {str(where.root)!a}: {unusable.group()!a} must not be in its path, because SQLite, DuckDB or "
            "Lance would take the path for another one.",
            "Set STELLA_HOME to another folder.",
        )
    try:
        where.root.mkdir(parents=True, exist_ok=True)
        # An existing folder that is read-only passes `mkdir`, and would fail in the middle of a run.
        reason = "" if os.access(where.root, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise EnvironmentVariableError(
            f"{where.root}: cannot be used as STELLA_HOME ({reason}).", "Set STELLA_HOME to a folder of your own."
        )
    finish_removals(where)
    link_instance_file(where, postgres=bool(os.environ.get("STELLA_POSTGRES")))
    # `dagster.yaml` reads the first, and so do processes that Dagster starts. What Dagster writes without being told
    # where, it writes into the second.
    os.environ["STELLA_HOME"] = os.environ["DAGSTER_HOME"] = str(where.root)
    return where


def check_postgres(timeout: int = 10) -> str | None:
    """Make sure that the database of `STELLA_POSTGRES` answers, if one is set. Its password is never shown.

    Args:
        timeout: Seconds to wait for an answer.

    Returns:
        Its host and port; None where none is set.

    Raises:
        EnvironmentVariableError: The address is malformed, a package is missing, or nothing answers there.
    """
    address = os.environ.get("STELLA_POSTGRES")
    if not address:
        return None
    import sqlalchemy as sa

    try:
        url = sa.make_url(address)
    # The latter for a port that is not a number.
    except (sa.exc.ArgumentError, ValueError):
        url = None
    # With a second @, a part of the password would be taken for the host. Neither the address nor the cause is shown.
    if url is None or address.count("@") > 1:
        raise EnvironmentVariableError("STELLA_POSTGRES: is not an address of a database.", POSTGRES_FORM)
    # Only this driver is installed with the extra `postgres`.
    if url.drivername != "postgresql+psycopg2":
        raise EnvironmentVariableError(f"STELLA_POSTGRES: begins with {url.drivername}://.", POSTGRES_FORM)
    _connect(url, timeout)
    return _place(url)


def _place(url: sa.URL) -> str:
    return f"{url.host or 'the local socket'}{f':{url.port}' if url.port else ''}"


def _connect(url: sa.URL, timeout: int) -> None:
    import sqlalchemy as sa

    try:
        # A short limit: a wrong host would otherwise block for minutes.
        sa.create_engine(url, connect_args={"connect_timeout": timeout}).connect().close()
    except ModuleNotFoundError as error:
        raise EnvironmentVariableError(
            f"STELLA_POSTGRES: needs the package {error.name}.",
            "Run `pip install -c constraints.txt -e '.[postgres]'`.",
        ) from None
    except sa.exc.OperationalError as error:
        reason = _without_secrets(str(error.orig), url)
        raise EnvironmentVariableError(
            f"STELLA_POSTGRES: nothing answers at {_place(url)} ({reason}).",
            "Start the database, or correct the address.",
        ) from None
    # The driver refuses an option or a character, and may quote a part of any value.
    except (sa.exc.SQLAlchemyError, ValueError, TypeError):
        raise EnvironmentVariableError(
            "STELLA_POSTGRES: the driver does not accept its options.", POSTGRES_FORM
        ) from None


def _without_secrets(text: str, url: sa.URL) -> str:
    """The first line of a message, without the password and without the values of options, which may be passwords."""
    values = [value for given in url.query.values() for value in ([given] if isinstance(given, str) else given)]
    for secret in sorted(filter(None, [url.password, url.database, *values]), key=len, reverse=True):
        text = text.replace(str(secret), "***")
    return next(iter(text.strip().splitlines()), "no reason given")


def _allows_environments() -> bool:
    words = os.environ.get("STELLA_ALLOW_ENVIRONMENTS") or "0"
    if words not in {"0", "1"}:
        raise EnvironmentVariableError(
            f"STELLA_ALLOW_ENVIRONMENTS {words!r}: is neither 0 nor 1.", "Give 1 to allow them."
        )
    return words == "1"


def _engine() -> Engine:
    """`STELLA_ENGINE`: the name of a kind, and after a colon the value of its first setting."""
    words = os.environ.get("STELLA_ENGINE")
    if not words:
        return LocalEngine()
    # At the first colon only: devices such as `cuda:0` have one themselves.
    kind, colon, value = words.partition(":")
    remedy = f"Name one of {', '.join(ENGINES.names())}, e.g. `processes:cuda:0,cuda:1`."
    if kind not in ENGINES.names():
        raise EnvironmentVariableError(f"STELLA_ENGINE {words!r}: is not an engine.", remedy)
    own = [name for name in ENGINES[kind].model_fields if name != ENGINES.key]
    if colon and not own:
        raise EnvironmentVariableError(f"STELLA_ENGINE {words!r}: the engine {kind!r} has no settings.", remedy)
    given = {own[0]: value.split(",")} if colon else {}
    try:
        engine: Engine = ENGINES[kind].model_validate({ENGINES.key: kind, **given})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise EnvironmentVariableError(f"STELLA_ENGINE {words!r}: {reason}.", remedy) from None
    return engine


def _positive(name: str, default: int, remedy: str) -> int:
    words = os.environ.get(name) or str(default)
    if not is_number(words) or int(words) < 1:
        raise EnvironmentVariableError(f"{name} {words!r}: is not a whole number above 0.", remedy)
    return int(words)
