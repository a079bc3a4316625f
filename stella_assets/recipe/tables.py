"""All tables that steps declare: what the views for SQL are built from."""

from __future__ import annotations

from importlib import import_module

from stella_assets.core.tables import declared_tables
from storage.tables import View

ROOMS = ("core", "corpus", "teachers", "training", "evaluation", "release", "study", "redistil")


def all_tables() -> list[View]:
    """The tables of all rooms, in the order that data flows; a room declares its own when it is imported."""
    for room in ROOMS:
        import_module(f"stella_assets.{room}.tables")
    return declared_tables()
