"""`stella reproduce`: make a release again in a new folder, and compare."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stella_assets.core.errors import UserError
from stella_assets.pipelines.cli.console import AsJson, find_recipe, make_table, people_runner
from stella_assets.pipelines.cli.printing import note, out, print_json, say
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.recipe import Graph
from stella_assets.release.retrievers.publish import FAMILY as RETRIEVER_RELEASE
from stella_assets.storage.files import write_atomically
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.core.trace import Node
    from stella_assets.lineage.reproduce import Comparison


class ReproductionError(UserError):
    """A release that cannot be reproduced as asked."""


def reproduce(
    release: Annotated[
        str,
        typer.Argument(
            metavar="RELEASE",
            help="RECIPE for its newest release, RECIPE@NAME for a promoted one, RECIPE/retriever_release/NAME for "
            "that of a retriever.",
        ),
    ],
    recipe: Annotated[str | None, typer.Option(help="The recipe, if it is not in recipes/.")] = None,
    into: Annotated[Path | None, typer.Option(help="A folder to make it in, and to keep.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare recipe, code, sources and stored bytes only.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Continue if recipe, code or sources differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a release again in a new folder and compare each artefact. Exit code 1 if one differs or is damaged."""
    workspace = prepare_environment()
    words, _, retriever = release.partition(f"/{RETRIEVER_RELEASE}/")
    graph = Graph(find_recipe(recipe or words.partition("@")[0]))
    from stella_assets.lineage.check import damages, mismatches
    from stella_assets.lineage.find import find_artefact

    # By the recipe's own name: the argument, or `--recipe`, may be the name of its file.
    asset = f"{RETRIEVER_RELEASE}/{retriever}" if retriever else graph.release.name
    node = find_artefact(workspace, words if "@" in words else f"{graph.recipe.name}/{asset}")
    if node.name != asset:
        raise ReproductionError(f"{release}: is a {node.name}, not a release.", "Give RECIPE or RECIPE@NAME.")
    mismatching, damaged = mismatches(node, graph, workspace), list(damages(node, workspace))
    if not as_json:
        _print_differences(mismatching, "Changed since", "Recipe, code, sources, libraries and machine are the same.")
        intact = f"All {len(node.all)} artefacts have the bytes that they were made with."
        _print_differences(damaged, "Damaged", intact)
    # Other libraries or another machine may still give equal bytes, so they are listed but do not stop it.
    other = any(difference.kind != "environment" for difference in mismatching) and not force
    compared: list[Comparison] = []
    if not (damaged or other or check):
        compared = _make_again(node, graph, workspace, into, quiet=as_json)
    if as_json:
        parts: dict[str, Sequence[Any]] = {"mismatches": mismatching, "damages": damaged, "compared": compared}
        print_json({name: [asdict(each) for each in rows] for name, rows in parts.items()})
    elif compared:
        _print_compared(compared)
    _end(damaged=bool(damaged), other=other, differing=bool(_differing(compared)))


def _make_again(node: Node, graph: Graph, workspace: Workspace, into: Path | None, *, quiet: bool) -> list[Comparison]:
    """Make the release again and compare it; the folder is deleted when nothing differs and nobody named it."""
    from stella_assets.core.trace import Tracer
    from stella_assets.lineage.difference import setup_differences
    from stella_assets.lineage.reproduce import Reproduction, reproduction_folder

    folder = (into or reproduction_folder(workspace, node)).absolute()
    _claim(folder, node.digest)
    compared = []
    for comparison in Reproduction(node, graph, workspace, people_runner(Workspace(folder))).run():
        compared.append(comparison)
        note(f"{len(compared)} of {len(node.all)}: {comparison.asset}: {comparison.verdict}")
    if not quiet:
        made = Tracer(Workspace(folder)).of_folder(folder / graph.recipe.name / node.name)
        setups = list(setup_differences(node, made))
        _print_differences(setups, "Made with", "Made with the same code, libraries, machine and threads.")
    # What differs is kept to be looked at, and so is a folder that the user named.
    if into is None and not _differing(compared):
        shutil.rmtree(folder)
    else:
        note(f"What was made is in {folder}")
    return compared


def _differing(compared: Sequence[Comparison]) -> list[Comparison]:
    return [comparison for comparison in compared if comparison.verdict == "differs"]


def _end(*, damaged: bool, other: bool, differing: bool) -> None:
    """Name the remedy, and end with the exit code."""
    # Damage first: what was compared with damaged bytes says nothing.
    if damaged:
        note("`stella vectors verify --repair` repairs vectors; delete the folder of an artefact to make it again.")
        sys.exit(1)
    if other:
        note("What is made now would be another release. Restore what is listed, or continue with --force.")
        sys.exit(2)
    if differing:
        sys.exit(1)


def _claim(folder: Path, digest: str) -> None:
    """Take a new folder, or one in which the same release was being made again."""
    claim = folder / "reproduction.json"
    ours = claim.is_file() and json.loads(claim.read_text(encoding="utf-8"))["release"] == digest
    if not ours and folder.exists() and any(folder.iterdir()):
        raise ReproductionError(f"--into {folder}: is not empty.", "Name a new folder.")
    # Before anything is made, so that a killed reproduction finds its own folder again.
    write_atomically(claim, json.dumps({"release": digest}) + "\n")


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
    say(f"{same} of {len(compared)} artefacts are identical by bytes, {other} differ.")
