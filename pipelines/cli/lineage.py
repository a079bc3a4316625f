"""`stella lineage`: what an artefact was made of, and how two artefacts differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree
from typer.core import TyperGroup

from stella_assets.core.present import shown_time
from stella_assets.pipelines.cli.console import AsJson, make_table
from stella_assets.pipelines.cli.printing import note, out, print_json, say, styled
from stella_assets.pipelines.environment import prepare_environment

ArtefactArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARTEFACT",
        help="RECIPE/ASSET, RECIPE for its release, RECIPE@RELEASE or @SNAPSHOT, a folder, or digits of a digest.",
    ),
]


class ShowUnlessNamed(TyperGroup):
    """`stella lineage demo/release` is `stella lineage show demo/release`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before words that are not a command."""
        # Help is of the group itself.
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=ShowUnlessNamed, no_args_is_help=True, help="What an artefact was made of, down to sources.")


@app.command()
def show(
    artefact: ArtefactArgument,
    as_json: AsJson = False,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file instead.")] = None,
) -> None:
    """Print an artefact and everything that it depends on; `show` may be left out."""
    workspace = prepare_environment()
    from stella_assets.lineage.difference import setups
    from stella_assets.lineage.find import find_artefact

    node = find_artefact(workspace, artefact)
    if svg is not None:
        from stella_assets.core.lineage_figure import lineage_figure

        svg.write_bytes(lineage_figure(node))
        say(f"{svg} shows {len(node.all)} artefacts.")
        return
    if as_json:
        print_json(node.to_json())
        return
    out.print(_tree(node), soft_wrap=True)
    say(f"{len(node.all)} artefacts, made in {node.seconds:,.0f} s")
    for name, values in setups(node).items():
        say(f"  {name:<22} {', '.join(values)}")


@app.command()
def diff(a: ArtefactArgument, b: ArtefactArgument, as_json: AsJson = False) -> None:
    """List how two artefacts differ: settings, sources, texts, vectors, code, libraries, figures."""
    workspace = prepare_environment()
    from stella_assets.lineage.difference import differences
    from stella_assets.lineage.find import find_artefact

    before, now = find_artefact(workspace, a), find_artefact(workspace, b)
    if before.name != now.name:
        note(f"{a} is a {before.name}, {b} a {now.name}: artefacts that only one depends on are listed, too.")
    found = differences(before, now, workspace)
    if as_json:
        print_json([difference.__dict__ for difference in found])
        return
    if before.digest == now.digest:
        say(f"The same artefact, {before.digest}.")
    # `format_cell` would round figures to six digits, and two different ones could look the same.
    rows = [{k: "" if v is None else str(v) for k, v in difference.__dict__.items()} for difference in found]
    out.print(make_table(rows, f"From {before.digest[:12]} to {now.digest[:12]}"))


def _tree(node: Any) -> Tree:
    from stella_assets.core.trace import walk

    branches: list[Tree] = []
    for depth, at, again in walk(node):
        if again:
            state = ("as above", "dim")
        elif at.manifest is None:
            state = ("its files were deleted", "yellow")
        else:
            state = (_made(at), "dim")
        label = styled((at.name, "bold"), f" {at.digest[:12]} ", state)
        branch = branches[depth - 1].add(label, highlight=False) if depth else Tree(label, highlight=False)
        # `branches[d]` is the open branch at depth d; deeper ones belong to an earlier artefact.
        branches[depth:] = [branch]
        # Each artefact is expanded once: shared inputs would make the tree grow exponentially.
        if not again:
            for name, digest in at.sources.items():
                branch.add(styled((name, "cyan"), f" {digest[:12]}"), highlight=False)
    return branches[0]


def _made(node: Any) -> str:
    info, identity = node.run_info, node.manifest.identity
    seed = f", seed {identity.settings['seed']}" if "seed" in identity.settings else ""
    when = shown_time(info["made_at"])
    return f"{when}, {info['seconds']:,.1f} s, code {identity.code_version}{seed}"
