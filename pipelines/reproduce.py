"""`stella reproduce`: make a release again in a fresh folder, and compare."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from storage.workspace import Workspace

from pipelines.console import AsJson, err, escape, find_recipe, make_table, out, people_log, refuse
from pipelines.resources import prepare_environment
from storage.artefacts import write_atomically

if TYPE_CHECKING:
    from stella_assets.lineage.reproduce import Comparison, Reproduction


def reproduce(
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="RECIPE for its newest release, RECIPE@NAME for a promoted one.")
    ],
    recipe: Annotated[str | None, typer.Option(help="The recipe, where it is not in recipes/.")] = None,
    into: Annotated[Path | None, typer.Option(help="A folder to make it in, and to keep.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare recipe, code, sources and stored bytes.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on although recipe, code or sources differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a release again in a fresh folder and compare each artefact. Exit code 1 if one differs or is damaged."""
    workspace = prepare_environment()
    wanted = find_recipe(recipe or release.partition("@")[0])
    from stella_assets.core.trace import Tracer
    from stella_assets.lineage.difference import setup_differences
    from stella_assets.lineage.reproduce import Reproduction, damages, mismatches, reproduction_folder

    node = Tracer(workspace).find(release if "@" in release else f"{wanted.name}/release")
    if node.name != "release":
        refuse(f"{release}: is a {node.name}, not a release.")
    mismatching, damaged = mismatches(node, wanted, workspace), list(damages(node, workspace))
    if not as_json:
        _print_differences(mismatching, "Not as it was then", "Recipe, code, sources, libraries, machine: as then.")
        _print_differences(
            damaged, "Damaged", f"All {len(node.all)} artefacts have the bytes that they were made with."
        )
    other = any(difference.kind != "environment" for difference in mismatching) and not force
    compared: list[Comparison] = []
    if not (damaged or other or check):
        folder = (into or reproduction_folder(workspace, node)).absolute()
        _claim(folder, node.digest)
        compared = _compare(Reproduction(node, wanted, workspace, Workspace(folder), people_log()), len(node.all))
        if not as_json:
            made = Tracer(Workspace(folder)).of_folder(folder / wanted.name / "release")
            setups = list(setup_differences(node, made))
            _print_differences(setups, "Made with", "Made with the same code, libraries, machine and threads.")
        if into is None and not _differing(compared):
            shutil.rmtree(folder)
        else:
            err.print(f"What was made is in {escape(str(folder))}", highlight=False, soft_wrap=True)
    if as_json:
        parts: dict[str, Sequence[Any]] = {"mismatches": mismatching, "damages": damaged, "compared": compared}
        print(json.dumps({name: [asdict(each) for each in rows] for name, rows in parts.items()}, indent=1))
    elif compared:
        _print_compared(compared)
    _end(damaged=bool(damaged), other=other, differing=bool(_differing(compared)))


def _compare(reproduction: Reproduction, total: int) -> list[Comparison]:
    compared = []
    for comparison in reproduction.run():
        compared.append(comparison)
        err.print(f"{len(compared)} of {total}: {comparison.asset}: {comparison.verdict}", highlight=False)
    return compared


def _differing(compared: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in compared if comparison.verdict == "differs"]


def _end(*, damaged: bool, other: bool, differing: bool) -> None:
    """Say what can be done, and end with the exit code."""
    if damaged:
        err.print("`stella vectors verify --repair` mends vectors; delete the folder of an artefact to make it again.")
        sys.exit(1)
    if other:
        err.print("What is made now would be another release. Restore what is listed, or go on with --force.")
        sys.exit(2)
    if differing:
        sys.exit(1)


def _claim(folder: Path, digest: str) -> None:
    """Take a new folder, or one in which this very release was being made again."""
    note = folder / "reproduction.json"
    ours = note.is_file() and json.loads(note.read_text(encoding="utf-8"))["release"] == digest
    if not ours and folder.exists() and any(folder.iterdir()):
        refuse(f"--into {folder}: is not empty. Name a new folder.")
    write_atomically(note, json.dumps({"release": digest}) + "\n")


def _print_differences(differences: Sequence[Any], title: str, nothing: str) -> None:
    if not differences:
        out.print(nothing)
        return
    rows = [{k: "" if v is None else str(v) for k, v in asdict(difference).items()} for difference in differences]
    out.print(make_table(rows, title))


def _print_compared(compared: Sequence[Any]) -> None:
    rows = [{**asdict(each), "before": each.before[:12], "now": each.now[:12]} for each in compared]
    out.print(make_table(rows, "Made again"))
    same, other = (sum(each.verdict == verdict for each in compared) for verdict in ("identical", "differs"))
    out.print(f"{same} of {len(compared)} artefacts are identical by bytes, {other} differ.", highlight=False)
