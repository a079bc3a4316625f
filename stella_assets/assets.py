"""The shell that every asset shares: make the step's artefact, and show what it is."""

import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import dagster as dg
from storage.workspace import Workspace

from stella_assets.core.manifest import digest
from stella_assets.core.step import Artefact, Launch, Runner, Step
from stella_assets.plots import data_uri
from storage.statistics import record_run, refresh_views

LAST = "release"
Show = Callable[[Artefact], Mapping[str, Any]]
POOLS = {"teacher_vectors/": "encoding", "stage_": "training", "mteb/seeds": "training"}
"""By the first part of a step's name: of a pool, only so many steps run at once, over all runs."""
Group = Literal["corpus", "teachers", "training", "evaluation", "release"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""In the order that data flows; the UI sorts groups by name, so the place is part of it."""


def asset_key(recipe: str, name: str) -> dg.AssetKey:
    """`<recipe>/<asset>`."""
    return dg.AssetKey([recipe, *name.split("/")])


def step_asset(
    step: Step,
    *,
    group: Group,
    kinds: set[str],
    description: str,
    checks: Mapping[str, str],
    blocking: Collection[str] = (),
    show: Show = lambda _artefact: {},
    soon: bool = False,
) -> dg.AssetsDefinition:
    """The Dagster asset of a step.

    `blocking` names checks whose failure stops what comes after; `soon` puts a cheap step that tells people something
    before the long ones.

    The artefact is found by content or made; its manifest's digest is the data version. The settings are part of the
    asset's code version, so a changed recipe shows as out of sync.
    """
    key = asset_key(step.recipe, step.name)

    @dg.asset(
        key=key,
        deps=[asset_key(step.recipe, name) for name in dict.fromkeys(s.name for s in (*step.needs, *step.after))],
        group_name=f"{step.recipe}_{GROUPS.index(group) + 1}_{group}",
        kinds=kinds,
        description=description,
        code_version=code_version(step),
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=what, blocking=name in blocking)
            for name, what in checks.items()
        ],
        tags={"stella/recipe": step.recipe},
        op_tags={"dagster/priority": "1"} if soon else None,
        pool=next((pool for start, pool in POOLS.items() if step.name.startswith(start)), None),
    )
    def make_artefact(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace], launcher: Launcher
    ) -> dg.MaterializeResult:
        with recorded(workspace, context.run_id, step) as record:
            runner = Runner(workspace, context.log, launcher.within(context))
            artefact = record.artefact = runner.make(step)
            if step.name == LAST:  # it rests on every other asset that the recipe has
                runner.prune_links(step)
        refresh_views(workspace)
        verb = "reused, nothing to do" if artefact.reused else f"made in {artefact.manifest.run_info['seconds']:.1f} s"
        context.log.info(f"{step.name}: {verb} ({artefact.digest[:12]})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artefact.digest),
            metadata={**show(artefact), **_common_metadata(artefact)},
            check_results=[
                dg.AssetCheckResult(
                    check_name=check.name,
                    passed=check.passed,
                    description=check.description,
                    metadata={name: float(value) for name, value in check.figures.items()},
                )
                for check in artefact.manifest.checks
            ],
        )

    return make_artefact


def filled_in(op: str, config: dg.Config) -> dict[str, Any]:
    """What a job's launchpad shows at first, to be changed."""
    return {"ops": {op: {"config": config.model_dump()}}}


def code_version(step: Step) -> str:
    """Of the code and of the step's part of the recipe, so that a changed recipe shows as out of sync."""
    return f"{step.code_version}-{digest(dict(step.settings))[:8]}"


def materialisation(step: Step, artefact: Artefact) -> dg.AssetMaterialization:
    """The event that the UI shows for a step that was made by something else than its own asset."""
    tags = {"dagster/data_version": artefact.digest, "dagster/code_version": code_version(step)}
    return dg.AssetMaterialization(asset_key(step.recipe, step.name), metadata=_common_metadata(artefact), tags=tags)


class Launcher(dg.ConfigurableResource):
    """Starts processes of their own for stages, as children of the run, through Dagster Pipes.

    Attributes:
        command: `accelerate launch --num_processes 2`, or `python`; empty to train in the process of the run.
    """

    command: str = ""

    def within(self, context: dg.AssetExecutionContext) -> Launch | None:
        """How a step of this run launches, if it does."""
        words = shlex.split(self.command)
        if not words:
            return None
        program = Path(sys.executable).with_name(words[0])
        start = [str(program) if program.is_file() else words[0], *words[1:]]

        def launch(arguments: Sequence[str]) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dg.PreviewWarning)  # of Dagster's own use of its pipes
                dg.PipesSubprocessClient().run(command=[*start, *arguments], context=context)

        return launch


@dataclass
class Record:
    """What a run did for one asset, so far."""

    artefact: Artefact | None = None


@contextmanager
def recorded(workspace: Workspace, run_id: str, step: Step) -> Iterator[Record]:
    """Add the outcome of the block to the run's record, for the view `runs`."""
    record, started, error = Record(), datetime.now(UTC), ""
    try:
        yield record
    except ValueError as refused:
        error = str(refused)
        raise
    finally:
        artefact = record.artefact
        row = {
            "run_id": run_id,
            "recipe": step.recipe,
            "asset": step.name,
            "started_at": started.replace(tzinfo=None).isoformat(sep=" "),
            "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
            "succeeded": artefact is not None,
            "reused": artefact is not None and artefact.reused,
            "digest": artefact.digest if artefact else None,
            "peak_memory_mib": artefact.manifest.run_info["peak_memory_mib"] if artefact else None,
            "error": error or None,
        }
        record_run(workspace, run_id, row)


def _common_metadata(artefact: Artefact) -> dict[str, Any]:
    about, metrics = artefact.manifest.run_info, artefact.manifest.metrics
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
    rows = metrics.get("texts") or metrics.get("rows")
    return {
        "folder": dg.MetadataValue.path(str(artefact.folder)),
        "digest": artefact.digest,
        "reused": artefact.reused,
        "made because": "; ".join(about.get("because", ())),
        "seconds": float(about["seconds"]),
        "peak_memory_mib": int(about["peak_memory_mib"]),
        "inputs": dg.MetadataValue.json(dict(artefact.manifest.identity.inputs)),
        **({"dagster/row_count": int(rows)} if rows else {}),
        **plain,
    }


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A plot as metadata: the UI draws Markdown pictures."""
    return dg.MetadataValue.md(f"![{alt}]({data_uri(png)})")


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows of equal keys as a Markdown table."""
    if not rows:
        return dg.MetadataValue.md("none")
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def _cell(value: Any) -> str:
    shown = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return shown.replace("|", "\\|").replace("\n", " ")
