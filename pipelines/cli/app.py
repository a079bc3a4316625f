"""The commands of `stella`.

Exit codes: 0 done; 1 a run failed, a result is missing, or a bug; 2 a person has to correct something; 130 Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from stella_assets.pipelines.cli import corpus, lineage, redistil, release, vectors
from stella_assets.pipelines.cli.audit_api import audit_api
from stella_assets.pipelines.cli.doctor import doctor
from stella_assets.pipelines.cli.evaluate import evaluate
from stella_assets.pipelines.cli.group import CommandGroup
from stella_assets.pipelines.cli.init import init
from stella_assets.pipelines.cli.printing import say
from stella_assets.pipelines.cli.recipes import recipes
from stella_assets.pipelines.cli.reproduce import reproduce
from stella_assets.pipelines.cli.run import plan, report, run, status, validate
from stella_assets.pipelines.cli.search import search
from stella_assets.pipelines.cli.sql import sql
from stella_assets.pipelines.cli.study import study
from stella_assets.pipelines.cli.ui import pools, ui
from stella_assets.pipelines.cli.verify import verify

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command, as contexts inherit it
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"stella-distil {version('stella-distil')}")
        raise typer.Exit


@app.callback()
def stella(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Distil a small text-embedding model from several large ones, with lineage that can be trusted."""


vectors.app.command("audit-api")(audit_api)
PANELS: dict[str, tuple[Callable[..., None] | tuple[str, typer.Typer], ...]] = {
    "Set up": (init, recipes, doctor, validate, ui, pools),
    "Make": (run, plan, study, ("redistil", redistil.app)),
    "Look": (status, report, search, sql, ("corpus", corpus.app), ("lineage", lineage.app)),
    "Compare and release": (evaluate, ("release", release.app), reproduce),
    "Store": (("vectors", vectors.app), verify),
}
"""Commands and groups of commands by task, in the order of the help."""
for _panel, _entries in PANELS.items():
    for _entry in _entries:
        if isinstance(_entry, tuple):
            app.add_typer(_entry[1], name=_entry[0], rich_help_panel=_panel)
        else:
            app.command(rich_help_panel=_panel)(_entry)
