"""`stella doctor`: what this machine has, and what recipes lack on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import platform, python_version
from typing import Annotated, Any

import typer

from stella_assets.core.devices import best_device_name
from stella_assets.core.engine import ENGINES
from stella_assets.core.errors import EXPECTED
from stella_assets.pipelines.cli.console import AsJson, find_recipe, make_table
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.environment import check_postgres, compute, threads, workspace
from stella_assets.pipelines.project import NoProjectError, find_project, recipe_files
from stella_assets.recipe.missing import missing
from stella_assets.storage.workspace import nearest_existing

LIBRARIES = (
    "stella-distil",
    "torch",
    "transformers",
    "sentence-transformers",
    "mteb",
    "dagster",
    "lancedb",
    "pylance",
    "duckdb",
    "polars",
    "onnxruntime",
)
DATABASE_SECONDS = 2
"""A database that does not answer by then is reported; a run waits longer."""


def doctor(
    recipes: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE]...", help="Left out: all recipes of the project.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show device, disks, database and versions, and what recipes lack here. Exit code 1 if anything is missing."""
    machine = {name: _told(ask) for name, ask in MACHINE.items()}
    # One cause, e.g. no home, may stand behind several rows.
    wrong = list(dict.fromkeys(each["problem"] for each in machine.values() if each["problem"]))
    try:
        named = recipes or [str(path) for path in recipe_files()]
    except NoProjectError:
        named = []  # the row of the project says it
    lacks = {Path(name).stem if not recipes else name: list(_lacks(name)) for name in named}
    libraries = {name: _version(name) for name in LIBRARIES}
    wrong += [
        f"{name} is not installed. Install stella-distil again." for name, found in libraries.items() if not found
    ]
    if as_json:
        print_json({"machine": machine, "libraries": libraries, "recipes": lacks, "problems": wrong})
    else:
        rows = [{"what": name, "is": each["value"] or "see below"} for name, each in machine.items()]
        out.print(make_table(rows, "This machine"))
        out.print(make_table([{"library": name, "version": each} for name, each in libraries.items()], "Libraries"))
        for line in wrong:
            note(("missing", "bold red"), f" {line}")
        for name, lines in lacks.items():
            say((name, "bold"), ": nothing is missing." if not lines else f": {len(lines)} missing.")
            for line in lines:
                say(f"  {line}")
    if wrong or any(lacks.values()):
        raise typer.Exit(1)


def _told(ask: Callable[[], str]) -> dict[str, str | None]:
    """A fact, or why there is none."""
    try:
        return {"value": ask(), "problem": None}
    except EXPECTED as error:
        return {"value": None, "problem": str(error)}


def _lacks(argument: str) -> Iterator[str]:
    try:
        recipe, environments = find_recipe(argument), compute().environments
    except EXPECTED as error:
        yield str(error)
        return
    yield from missing(recipe, environments)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _threads() -> str:
    number, origin = threads()
    return f"{number}, from {origin}"


def _engine() -> str:
    settings = compute().engine.settings()
    kind = settings.pop(ENGINES.key)
    return ", ".join([kind, *(f"{name} {value}" for name, value in settings.items())])


def _memory() -> str:
    import psutil

    memory: Any = psutil.virtual_memory()
    return f"{memory.available / 2**30:,.1f} of {memory.total / 2**30:,.1f} GiB are free"


def _home() -> str:
    return _with_space(str(workspace().root))


def _vectors() -> str:
    where = workspace()
    return where.vectors if where.remote else _with_space(where.vectors)


def _with_space(folder: str) -> str:
    # It need not exist yet: nothing is made here.
    free = shutil.disk_usage(nearest_existing(Path(folder))).free
    return f"{folder}, {free / 2**30:,.1f} GiB are free"


def _database() -> str:
    place = check_postgres(DATABASE_SECONDS)
    return "SQLite in the home" if place is None else f"Postgres at {place}"


MACHINE: dict[str, Callable[[], str]] = {
    "system": lambda: f"{platform()}, Python {python_version()}",
    "device": best_device_name,
    "engine": _engine,
    "threads": _threads,
    "memory": _memory,
    "project": lambda: str(find_project(Path.cwd()) or "none"),
    "home": _home,
    "vectors": _vectors,
    "database": _database,
}
"""What is asked, by its name; each answer by itself, so that one problem hides no other."""
