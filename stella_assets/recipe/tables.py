"""All tables that steps declare: what the views for SQL are built from."""

from __future__ import annotations

from importlib import import_module

from stella_assets.core.tables import declared_tables
from stella_assets.storage.tables import View

ROOMS = ("core", "corpus", "teachers", "training", "evaluation", "release", "study", "redistil")


def all_tables() -> list[View]:
    """The tables of all rooms; a room declares its own when it is imported.

    Returns:
        The tables, in the order that data flows.
    """
    for room in ROOMS:
        # Each room declares its tables in a module of this name, so the storage layer needs no list of them.
        import_module(f"stella_assets.{room}.tables")
    return declared_tables()
