"""The commands of `stella`.

Exit codes: 0 done; 1 a run failed, a result is missing, or a bug; 2 a person has to correct something.
"""

from __future__ import annotations

import typer

from stella_assets.pipelines.cli import corpus, lineage, redistil, release, vectors
from stella_assets.pipelines.cli.evaluate import evaluate
from stella_assets.pipelines.cli.init import init
from stella_assets.pipelines.cli.renamed import CommandGroup
from stella_assets.pipelines.cli.reproduce import reproduce
from stella_assets.pipelines.cli.run import plan, report, run, status, validate
from stella_assets.pipelines.cli.sql import sql
from stella_assets.pipelines.cli.study import study
from stella_assets.pipelines.cli.ui import pools, ui
from stella_assets.pipelines.cli.verify import verify

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a small text-embedding model from several large ones, with lineage that can be trusted.",
)
for command in (init, run, study, status, plan, report, evaluate, sql, validate, verify, pools, ui, reproduce):
    app.command()(command)
for name, group in (
    ("corpus", corpus.app),
    ("vectors", vectors.app),
    ("release", release.app),
    ("lineage", lineage.app),
    ("redistil", redistil.app),
):
    app.add_typer(group, name=name)
