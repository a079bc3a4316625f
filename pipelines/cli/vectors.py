"""`stella vectors`: what the vector store holds, whether it is intact, export and import."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stella_assets.pipelines.cli.console import AsJson, find_recipe, make_table, people_runner, say_in_use
from stella_assets.pipelines.cli.printing import note, out, print_json, say, styled
from stella_assets.pipelines.environment import prepare_environment
from stella_assets.pipelines.project import find_project, recipe_files
from stella_assets.recipe import Graph, read_recipe
from stella_assets.recipe.read import read_raw
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.teachers.audit import AuditedRecipe

app = typer.Typer(no_args_is_help=True, help="Look at, verify, clean, export and import the teacher-vector store.")

SnapshotArgument = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="A recipe's name for its current snapshot, or RECIPE@TAG.")
]


@app.command("list")
def list_tables(as_json: AsJson = False) -> None:
    """List teachers and snapshots: rows, dimensions, size, and which recipes use them."""
    workspace = prepare_environment()
    from stella_assets.teachers.catalogue import list_snapshots, list_teachers

    teachers, snapshots = list_teachers(workspace), list_snapshots(workspace)
    if as_json:
        print_json({"store": workspace.vectors, "teachers": teachers, "snapshots": snapshots})
        return
    say(f"Store {workspace.vectors}")
    out.print(make_table(teachers, "Teachers", right=("dim", "rows", "MiB")))
    out.print(make_table(snapshots, "Snapshots", right=("version", "rows", "dim", "MiB")))


@app.command()
def show(name: Annotated[str, typer.Argument(help="RECIPE, RECIPE@TAG, or a teacher's fingerprint.")]) -> None:
    """Show the description of a snapshot or of a teacher's table, as JSON."""
    workspace = prepare_environment()
    from stella_assets.teachers.catalogue import describe

    print_json(describe(workspace, name))


@app.command()
def diff(a: SnapshotArgument, b: SnapshotArgument, as_json: AsJson = False) -> None:
    """List how two snapshots differ: texts by source, teachers, weights, and drift."""
    workspace = prepare_environment()
    from stella_assets.teachers.catalogue import compare, open_snapshot
    from stella_assets.teachers.drift import snapshot_drift

    before, now = open_snapshot(workspace, a), open_snapshot(workspace, b)
    found = {**compare(before, now), "drift": snapshot_drift(before, now)}
    if as_json:
        print_json(found)
        return
    say(f"{a} has {len(before):,} texts, {b} has {len(now):,}.")
    out.print(make_table(found["texts"], "Texts by source", right=("added", "removed", "changed")))
    out.print(make_table(found["teachers"], "Teachers"))
    out.print(make_table(found["drift"], "Drift"))


@app.command()
def verify(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(help="Recipes whose vectors to recompute; left out: all of recipes/ that were run."),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Vectors to recompute for each teacher of a recipe.")] = 64,
    paid: Annotated[
        int, typer.Option(min=0, help="Vectors of each paid teacher to ask for again, for money; without it none.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    repair: Annotated[bool, typer.Option("--repair", help="Make what is damaged or missing again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify digests, rows, ids, norms and a recomputed sample. Exit code 1 if something is damaged."""
    workspace = prepare_environment()
    from stella_assets.core.progress import progress_bar
    from stella_assets.teachers.audit import Auditor
    from stella_assets.teachers.repair import repair as repair_damages

    known = audited_recipes(workspace, recipes)
    auditor = Auditor(known, people_runner(workspace), sample, seed, paid)
    with progress_bar(auditor.bytes(), "verify", "B") as bar:
        audit = auditor.verify(bar.update)
    repaired: list[str] = []
    if repair and audit.damages:
        # Printed now: the second audit no longer has what was repaired.
        _print_damages(audit.damages)
        repaired = repair_damages(audit, known, people_runner(workspace))
        # A new runner, as the first one remembers what was there before the repair.
        audit = Auditor(known, people_runner(workspace), sample, seed).verify()
    if as_json:
        _print_audit_json(audit, repaired)
    else:
        for line in repaired:
            say(f"repaired  {line}")
        _print_audit(audit)
    if audit.damages:
        raise typer.Exit(1)


def _print_audit_json(audit: Any, repaired: list[str]) -> None:
    print_json(
        {
            "tables": [{k: v for k, v in table.__dict__.items() if k != "damages"} for table in audit.tables],
            "recomputed": [comparison.__dict__ for comparison in audit.comparisons],
            "damages": [damage.__dict__ for damage in audit.damages],
            "repaired": repaired,
        }
    )


def _print_audit(audit: Any) -> None:
    rows = [
        {
            "table": table.table,
            "rows": f"{table.rows:,}",
            "versions": table.versions,
            "files": table.files,
            "MiB": f"{table.bytes / 2**20:,.1f}",
            "verdict": styled((f"{len(table.damages)} damaged", "red") if table.damages else ("intact", "green")),
        }
        for table in audit.tables
    ]
    out.print(make_table(rows, "Tables", right=("rows", "versions", "files", "MiB")))
    if audit.comparisons:
        out.print(make_table([c.__dict__ for c in audit.comparisons], "Recomputed from the texts"))
    _print_damages(audit.damages)
    if audit.damages:
        say(f"Damaged: {len(audit.damages)}. `stella vectors verify --repair` makes what is damaged again.")
    else:
        say("The store is intact.")


def _print_damages(damages: list[Any]) -> None:
    for damage in damages:
        tags = f" (snapshots {', '.join(damage.tags)})" if damage.tags else ""
        note(("damaged", "bold red"), f" {damage.table} {damage.place}: {damage.what}{tags}")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also delete snapshots that no current recipe and no release uses.")
    ] = False,
    drop_imported: Annotated[
        list[str] | None,
        typer.Option(metavar="FINGERPRINT", help="Also delete imported vectors, if nothing uses them."),
    ] = None,
    drop_home: Annotated[
        list[str] | None,
        typer.Option(metavar="HOME", help="Another home that used this store and is gone: it keeps nothing any more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete what no tag, no release and no current recipe needs. Imported vectors stay until they are named."""
    workspace = prepare_environment()
    from stella_assets.release.alive import collecting, needed_vectors
    from stella_assets.storage.homes import homes_of
    from stella_assets.teachers.garbage import collect_garbage, require_homes
    from stella_assets.teachers.imported import imported_fingerprints, require_imported

    given_up, gone = drop_imported or [], drop_home or []
    require_homes(workspace, gone)
    for fingerprint in given_up:
        require_imported(workspace, fingerprint)

    # Of all recipes of the workspace, not only those in recipes/: their links and releases count.
    with collecting(workspace) as builds:
        say_in_use(builds)
        look = partial(needed_vectors, workspace)
        garbage = collect_garbage(workspace, look, dry_run=dry_run, superseded=superseded, given_up=given_up, gone=gone)
        needed = look()
    for fingerprint in sorted(set(imported_fingerprints(workspace)) - needed.fingerprints - set(given_up)):
        note(
            f"Kept: vectors that were imported under {fingerprint} and that nothing uses; "
            f"`stella vectors gc --drop-imported {fingerprint}` deletes them."
        )
    for home, place in homes_of(workspace).items():
        if home not in gone:
            note(f"Kept: the tables that {place} uses, too. Once that is gone: `stella vectors gc --drop-home {home}`.")
    total = sum(item.bytes for item in garbage)
    if as_json:
        print_json({"dry_run": dry_run, "bytes": total, "garbage": [g.__dict__ for g in garbage]})
        return
    rows = [{**item.__dict__, "bytes": f"{item.bytes:,}"} for item in garbage]
    out.print(make_table(rows, "Would be deleted" if dry_run else "Deleted", right=("files", "bytes")))
    say(f"{total / 2**20:,.1f} MiB {'would be' if dry_run else 'were'} deleted.")


@app.command()
def export(
    snapshot: SnapshotArgument,
    to: Annotated[Path, typer.Option(help="A new folder.")],
    form: Annotated[
        Literal["parquet", "npy", "safetensors"], typer.Option("--format", help="Of the vectors.")
    ] = "parquet",
    teacher: Annotated[list[str] | None, typer.Option(help="Only this teacher; may be given several times.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the texts and vectors of a snapshot to a folder, with a JSON file that describes them."""
    workspace = prepare_environment()
    from stella_assets.core.progress import progress_bar
    from stella_assets.teachers.catalogue import open_snapshot
    from stella_assets.teachers.transfer import export_snapshot

    opened = open_snapshot(workspace, snapshot)
    with progress_bar(len(opened), "export", "rows") as bar:
        files = export_snapshot(opened, to, form, teacher, bar.update)
    if as_json:
        print_json({"snapshot": snapshot, "rows": len(opened), "folder": to.absolute(), "files": files})
        return
    say(f"{len(opened):,} rows of {snapshot} in {to}:")
    for file in files:
        say(f"  {file.name}  {file.stat().st_size / 2**20:,.1f} MiB")


@app.command("import")
def import_vectors(  # noqa: PLR0913, PLR0917 (one for each option)
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe that has the teacher.")],
    teacher: Annotated[str, typer.Option(help="The teacher that made the vectors.")],
    vectors: Annotated[
        Path, typer.Option(help="npy, Parquet, JSON Lines, output of a batch of OpenAI, or a file without a header.")
    ],
    texts: Annotated[
        Path | None,
        typer.Option(help="The texts where the file lacks them: one per line, or JSON Lines; of a batch its input."),
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Dimensions, of a file without a header.")] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of a file without a header.")] = "float32",
    role: Annotated[
        Literal["document", "query"], typer.Option(help="Role that the texts were embedded in.")
    ] = "document",
    paid: Annotated[
        int, typer.Option(min=0, help="Of a paid teacher: texts to ask the service for again, to compare.")
    ] = 0,
    trust: Annotated[
        str, typer.Option(metavar="REASON", help="Of a paid teacher: why the vectors are believed without a check.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Import vectors that a teacher made elsewhere, after a sample of them was recomputed."""
    workspace = prepare_environment()
    graph = Graph(find_recipe(recipe))
    from stella_assets.core.progress import progress_bar
    from stella_assets.teachers.adopt import adopt_answers, adopt_vectors, require_check
    from stella_assets.teachers.encode import find_teacher, open_teacher
    from stella_assets.teachers.vector_files import open_vectors

    known = {each.name: each for each in graph.recipe.teachers}
    chosen = find_teacher(graph.recipe.name, known, teacher)
    require_check(chosen, paid, trust)
    runner = people_runner(workspace)
    with tempfile.TemporaryDirectory(dir=workspace.root) as scratch:
        rows, lines = open_vectors(vectors, texts, dim, dtype, lambda: runner.read(graph.corpus), Path(scratch))
        # The teacher recomputes a sample, so vectors of another model or in another order are refused.
        model = open_teacher(chosen, graph.teachers[teacher], runner)
        with progress_bar(len(lines), "import", "rows") as bar:
            if chosen.paid:
                counts = adopt_answers(rows, lines, model, role, teacher, paid, bar.update)
            else:
                counts = adopt_vectors(rows, lines, model, role, workspace, teacher, bar.update)
    if as_json:
        print_json(counts)
        return
    least = counts["least_cosine"]
    checked = "None was checked" if least is None else f"Least cosine of the recomputed sample: {least}"
    say(
        f"{counts['stored']:,} of {counts['rows']:,} vectors stored; {counts['there_already']:,} were there, "
        f"{counts['doubled']:,} are of doubled texts, {counts['changed_by_normalisation']:,} of texts that are not in "
        f"normal form. {checked}. Garbage collection keeps them."
    )


def audited_recipes(workspace: Workspace, names: Sequence[str] | None) -> list[AuditedRecipe]:
    """What an audit knows of recipes: of the named ones, or of all that were run here."""
    from stella_assets.teachers.audit import AuditedRecipe

    graphs = [Graph(find_recipe(name)) for name in names] if names else _graphs_that_were_run(workspace)
    return [AuditedRecipe(graph.recipe.name, graph.corpus, graph.teachers) for graph in graphs]


def _graphs_that_were_run(workspace: Workspace) -> list[Graph]:
    """The recipes of the project that have a corpus here; none where a workspace is looked at without a project."""
    files = recipe_files() if find_project(Path.cwd()) else []
    # By name first: a recipe that was never run may name files that do not exist here.
    paths = [path for path in files if (workspace.root / str(read_raw(path).get("name"))).is_dir()]
    graphs = [Graph(read_recipe(path)) for path in paths]
    return [graph for graph in graphs if workspace.current(graph.recipe.name, graph.corpus.name).exists()]
