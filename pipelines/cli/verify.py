"""`stella verify`: whether everything in the workspace is as it was written."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stella_assets.pipelines.cli.console import AsJson, people_runner
from stella_assets.pipelines.cli.printing import note, print_json, say
from stella_assets.pipelines.environment import prepare_environment


def verify(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(help="Recipes whose vectors to repair; left out: all of recipes/ that were run."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take what is damaged out of the way, and make vectors again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every byte of artefacts, vectors, releases and all else here. Exit code 1 if something is damaged."""
    workspace = prepare_environment()
    from stella_assets.core.progress import progress_bar
    from stella_assets.lineage.verify import Damaged, verify_files
    from stella_assets.pipelines.cli.vectors import audited_recipes
    from stella_assets.teachers.audit import Auditor
    from stella_assets.teachers.repair import repair as repair_vectors

    known = audited_recipes(workspace, recipes)
    with progress_bar(0, "verify", "B") as bar:
        found = list(verify_files(workspace, bar.update))
        # Without a sample: recomputing needs the teachers, and `stella vectors verify` does it.
        audit = Auditor(known, people_runner(workspace), sample=0).verify(bar.update)
    vectors = [
        Damaged(f"{damage.table}, {damage.place}", f"{damage.what}.", "the next run that reads it makes it again")
        for damage in audit.damages
    ]
    shown: list[Any] = [*found, *vectors]
    if not as_json:
        for each in shown:
            note(("damaged", "bold red"), f" {each.place}: {each.what} Remedy: {each.remedy}.")
    left = shown
    if repair and shown:
        for each in found:
            if each.mend is not None:
                each.mend()
        if audit.damages:
            repair_vectors(audit, known, people_runner(workspace))
        audit = Auditor(known, people_runner(workspace), sample=0).verify()
        left = [*verify_files(workspace), *audit.damages]
    if as_json:
        rows = [{"place": each.place, "what": each.what, "remedy": each.remedy} for each in shown]
        print_json({"damages": rows, "left": len(left)})
    elif repair and shown:
        say(f"Damaged: {len(shown)}, of which {len(left)} are left. The next run makes again what is missing now.")
    else:
        say(
            f"Damaged: {len(shown)}. `stella verify --repair` takes them out of the way."
            if shown
            else "Nothing is damaged."
        )
    if left:
        raise typer.Exit(1)
