"""The step `study`: scores of a recipe's variants, each with its mean and spread over seeds."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq
from storage.workspace import Workspace

from stella_assets import plots
from stella_assets.core.manifest import Check
from stella_assets.core.step import BuildContext, Result, Runner, Step, all_steps
from stella_assets.evaluation import tables
from stella_assets.evaluation.score import SCORES_FILE, score_steps
from stella_assets.evaluation.seeds import spread
from stella_assets.recipe import Recipe
from stella_assets.study.variants import Variant, derive
from storage.statistics import STUDY, write_table

CODE_VERSION = "1"
STUDY_FILE = "study.parquet"
TABLE_FILE = "study.md"
HTML_FILE = "study.html"
PLOT_FILES = {"mean": "study_mean.png", "tasks": "study_tasks.png"}

Row = dict[str, Any]


def variant_steps(recipe: Recipe, variant: Variant) -> list[Step]:
    """The steps of a variant up to the scores of its last stage, inputs first.

    What a change does not reach has the same identity as in the recipe itself, so it is there already.
    """
    return all_steps(score_steps(derive(recipe, variant))[-1])


def variant_rows(recipe: Recipe, variant: Variant, workspace: Workspace) -> list[Row]:
    """Scores of a variant that was run, a row a dimension and task; none where it was not."""
    derived = derive(recipe, variant)
    runner = Runner(workspace, logging.getLogger("stella"))
    scored = score_steps(derived)[-1]
    scores = runner.find(scored)
    stage = runner.find(next(step for step in scored.needs if step.name.startswith("stage_")))
    if scores is None or stage is None:
        return []
    return [
        {
            "variant": variant.label,
            "seed": variant.seed,
            "stages": len(derived.stages),
            **{key: score[key] for key in ("dimension", "task", "type", "score")},
            "dev_loss": stage.manifest.metrics["dev_loss_after"],
            "dev_neighbours": stage.manifest.metrics["dev_neighbours_after"],
            "digest": scores.digest,
        }
        for score in pq.read_table(scores.folder / SCORES_FILE).to_pylist()
    ]


def study_step(recipe: Recipe, variants: Sequence[Variant], workspace: Workspace) -> Step:
    """The step that makes `study` of those variants that were run."""
    rows = [row for variant in variants for row in variant_rows(recipe, variant, workspace)]
    return Step(
        recipe=recipe.name,
        name="study",
        code_version=CODE_VERSION,
        settings={"recipe": recipe.name, "description": recipe.description},
        sources=lambda _workspace: {f"{row['variant']}; seed={row['seed']}": row["digest"] for row in rows},
        build=lambda context: _compare(recipe, rows, context),
    )


def compare(rows: Sequence[Row]) -> list[Row]:
    """Mean and spread over seeds of each variant and dimension, the best first.

    `mean` and the tasks are in hundredths; `spread` is the standard deviation over seeds of the mean over tasks, None
    with one seed.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["dimension"]), []).append(row)
    compared = []
    for (variant, dimension), members in groups.items():
        tasks = sorted({row["task"] for row in members})
        by_seed = [
            100 * statistics.mean(row["score"] for row in members if row["seed"] == seed)
            for seed in sorted({row["seed"] for row in members})
        ]
        compared.append(
            {
                "variant": variant,
                "dimension": dimension,
                **spread(by_seed),
                "tasks": {t: 100 * statistics.mean(r["score"] for r in members if r["task"] == t) for t in tasks},
                "dev_neighbours": statistics.mean(row["dev_neighbours"] for row in members),
            }
        )
    largest = {variant: max(d for v, d in groups if v == variant) for variant, _ in groups}
    best = {row["variant"]: row["mean"] for row in compared if row["dimension"] == largest[row["variant"]]}
    return sorted(compared, key=lambda row: (-best[row["variant"]], row["variant"], -row["dimension"]))


def table_rows(compared: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table that people read."""
    tasks = sorted({task for row in compared for task in row["tasks"]})
    rows = [
        [
            row["variant"],
            str(row["dimension"]),
            str(row["seeds"]),
            f"{row['mean']:.2f}",
            "" if row["spread"] is None else f"{row['spread']:.2f}",
            *(f"{row['tasks'][task]:.2f}" if task in row["tasks"] else "" for task in tasks),
            f"{100 * row['dev_neighbours']:.1f}%",
        ]
        for row in compared
    ]
    return ["variant", "dimension", "seeds", "mean", "spread", *tasks, "teachers' neighbours"], rows


def _compare(recipe: Recipe, rows: list[Row], context: BuildContext) -> Result:
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    if not rows:
        raise ValueError(f"study: no variant was run yet. `stella study {recipe.name} --grid ...` runs some.")
    compared = compare(rows)
    table = table_rows(compared)
    drawn = {"mean": plots.study_means(compared), "tasks": plots.study_tasks(compared)}
    write_table(context.folder / STUDY_FILE, STUDY, rows)
    (context.folder / TABLE_FILE).write_text(tables.markdown_table(*table) + "\n", encoding="utf-8")
    (context.folder / "study.json").write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    for name, png in drawn.items():
        (context.folder / PLOT_FILES[name]).write_bytes(png)
    templates = Environment(loader=PackageLoader("stella_assets.study"), autoescape=select_autoescape(["html.j2"]))
    html = templates.get_template("study.html.j2").render(
        recipe=recipe,
        best=compared[0],
        variants=len({row["variant"] for row in rows}),
        runs=len({(row["variant"], row["seed"]) for row in rows}),
        table=Markup(tables.html_table(*table)),  # noqa: S704 (escaped there)
        plots={name: plots.data_uri(png) for name, png in drawn.items()},
    )
    (context.folder / HTML_FILE).write_text(html, encoding="utf-8")
    seeds = min(row["seeds"] for row in compared)
    return Result(
        metrics={"variants": len({row["variant"] for row in rows}), "best": compared[0]["variant"], "seeds": seeds},
        checks=(Check("every_variant_has_three_seeds", seeds >= 3, f"the fewest seeds of a variant: {seeds}"),),
        unhashed_files=(HTML_FILE, *PLOT_FILES.values()),
    )
