"""The step `study`: scores of a recipe's variants, each with its mean and standard deviation over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check
from stella_assets.core.markup import markdown_table
from stella_assets.core.present import Markdown, Picture, Shown, data_uri, html_table
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step, upstream
from stella_assets.core.templates import render
from stella_assets.recipe import Graph, Recipe
from stella_assets.study import STUDY_ASSET, plots
from stella_assets.study.compare import Row, compare, table_rows
from stella_assets.study.tables import STUDY
from stella_assets.study.variants import Variant, derive

CODE_VERSION = "3"
TABLE_FILE = "study.md"
JSON_FILE = "study.json"
HTML_FILE = "study.html"
PLOT_FILES = {"mean": "study_mean.png", "tasks": "study_tasks.png"}
# The standard deviation of two values has one degree of freedom: it is hardly an estimate.
MIN_SEEDS = 3
SEEDS_CHECK = CheckSpec("every_variant_has_three_seeds", "A standard deviation needs three runs of each variant.")


class EmptyStudyError(UserError):
    """No variant was run yet."""


def variant_graph(recipe: Recipe, variant: Variant) -> Graph:
    """The graph of a variant. What a change does not affect has the same identity as in the recipe itself.

    Args:
        recipe: The recipe that the variant changes.
        variant: Its changes and seed.

    Raises:
        VariantError: The recipe refuses the change.
    """
    return Graph(derive(recipe, variant))


def variant_steps(recipe: Recipe, variant: Variant) -> list[Step[Any]]:
    """The steps of a variant up to the scores of its last stage, inputs first.

    Args:
        recipe: The recipe that the variant changes.
        variant: Its changes and seed.

    Raises:
        VariantError: The recipe refuses the change.
    """
    return upstream(last_scores(variant_graph(recipe, variant)))


def last_scores(graph: Graph) -> Step[Any]:
    """The step that scores the last stage."""
    return graph.scores[graph.stages[-1].name]


def mean_scores(scores: Artefact) -> dict[int, float]:
    """Mean score over tasks of a model.

    Args:
        scores: The artefact of a step that scores a model.

    Returns:
        The mean by dimension, from 0 to 1.
    """
    by_dimension: dict[int, list[float]] = {}
    for row in scores.manifest.metrics["scores"]:
        by_dimension.setdefault(row["dimension"], []).append(row["score"])
    return {dimension: sum(values) / len(values) for dimension, values in by_dimension.items()}


def variant_rows(graph: Graph, variant: Variant, runner: Runner) -> list[Row]:
    """Scores of a variant that was run, one row per dimension and task; empty where it was not.

    Args:
        graph: Of the variant.
        variant: Its changes and seed.
        runner: Finds the artefacts.
    """
    scores, stage = runner.find(last_scores(graph)), runner.find(graph.stages[-1])
    if scores is None or stage is None:
        return []
    metrics = stage.manifest.metrics
    return [
        {
            "variant": variant.label,
            "seed": variant.seed,
            "stages": len(graph.stages),
            **{key: score[key] for key in ("dimension", "task", "type", "score")},
            "dev_loss": metrics["dev_loss_after"],
            "dev_neighbours": metrics["dev_neighbours_after"],
            "digest": scores.digest,
        }
        for score in scores.manifest.metrics["scores"]
    ]


def study_step(recipe: Recipe, variants: Sequence[Variant], runner: Runner) -> Step[Artefact]:
    """The step that makes `study`, of those variants that were run.

    Args:
        recipe: The recipe.
        variants: What may have been run.
        runner: Finds their scores.

    Returns:
        A step without dependencies: the digests of the scores are its external versions. Its build raises
        `EmptyStudyError` where no variant was run.

    Raises:
        VariantError: The recipe refuses the change of a variant.
    """
    # Read here, not in `build`: the digests of the scores are the identity of the step.
    rows = [row for variant in variants for row in variant_rows(variant_graph(recipe, variant), variant, runner)]
    versions = {f"{row['variant']}; seed={row['seed']}": str(row["digest"]) for row in rows}
    return Step(
        recipe=recipe.name,
        name=STUDY_ASSET,
        code_version=CODE_VERSION,
        settings={"recipe": recipe.name, "description": recipe.description},
        # Variants are not dependencies: those that were never run would otherwise have to be made first.
        external_versions=lambda _workspace: versions,
        build=lambda context: _write(recipe.name, recipe.description, rows, context),
        presentation=Presentation(
            group="evaluation",
            description="Scores of the variants that were run, with mean and standard deviation over seeds.",
            kinds=frozenset({"duckdb"}),
            checks=(SEEDS_CHECK,),
            show=_show,
        ),
    )


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    pictures = {name: Picture((artefact.folder / file).read_bytes(), name) for name, file in PLOT_FILES.items()}
    return {"comparison": Markdown((artefact.folder / TABLE_FILE).read_text(encoding="utf-8")), **pictures}


def _write(recipe: str, description: str, rows: Sequence[Row], context: BuildContext) -> Result:
    if not rows:
        raise EmptyStudyError(
            f"study of {recipe!r}: no variant was run yet.", f"`stella study {recipe} --grid ...` runs some."
        )
    compared = compare(rows)
    table = table_rows(compared)
    drawn = {"mean": plots.study_means(compared), "tasks": plots.study_tasks(compared)}
    STUDY.write(context.folder, rows)
    (context.folder / TABLE_FILE).write_text(markdown_table(*table) + "\n", encoding="utf-8")
    (context.folder / JSON_FILE).write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    for name, png in drawn.items():
        (context.folder / PLOT_FILES[name]).write_bytes(png)
    variants, runs = ({tuple(row[key] for key in keys) for row in rows} for keys in (["variant"], ["variant", "seed"]))
    page = _page(
        recipe=recipe,
        description=description,
        best=compared[0],
        variants=len(variants),
        runs=len(runs),
        table=html_table(*table),
        plots={name: data_uri(png) for name, png in drawn.items()},
    )
    (context.folder / HTML_FILE).write_text(page, encoding="utf-8")
    seeds = min(row["seeds"] for row in compared)
    return Result(
        metrics={"variants": len(variants), "best": compared[0]["variant"], "seeds": seeds},
        checks=(Check(SEEDS_CHECK.name, seeds >= MIN_SEEDS, f"the fewest seeds of a variant: {seeds}"),),
        # matplotlib's PNG files depend on its version and on fonts; the page embeds them.
        unhashed_files=(HTML_FILE, *PLOT_FILES.values()),
    )


def _page(*, table: str, **content: Any) -> str:
    """The page that people read. `table` is HTML, everything else is escaped."""
    from markupsafe import Markup

    safe = Markup(table)  # noqa: S704 (escaped where it is made)
    return render(__package__, "study.html.j2", table=safe, **content)
