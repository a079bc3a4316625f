"""The scores of models: how they are written, read, shown and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stella_assets.core.manifest import Check
from stella_assets.core.markup import markdown_table
from stella_assets.core.present import Markdown, Shown
from stella_assets.core.step import Artefact, CheckSpec, Deviation, Group, Presentation, Result
from stella_assets.evaluation.tables import MODEL_SAMPLES, SCORES
from stella_assets.evaluation.task_set import MTEB
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace

# Another processor or library sums in another order; a score of few samples then jumps by whole samples.
SCORE_TOLERANCE = 1.0
"""Points of 100 by which a score may differ when it is computed again on another machine."""
IN_RANGE = CheckSpec("scores_are_in_range", "Every score lies between 0 and 1.")
SHOWN = ("model", "dimension", "task", "type", "metric", "score")


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model or several, as an artefact keeps them.

    Attributes:
        folder: Of the artefact.
        metrics: Of its manifest: size and speed, where they were measured.
    """

    folder: Path
    metrics: Mapping[str, Any]

    @classmethod
    def read(cls, artefact: Artefact, _workspace: Workspace) -> ModelScores:
        """The scores that an artefact holds."""
        return cls(artefact.folder, artefact.manifest.metrics)

    def rows(self) -> pl.DataFrame:
        """Rows of `SCORES`."""
        return pl.read_parquet(self.folder / SCORES.file)

    def samples(self) -> pl.DataFrame:
        """Rows of `MODEL_SAMPLES`."""
        return pl.read_parquet(self.folder / MODEL_SAMPLES.file)


def write_scores(folder: Path, rows: Sequence[Mapping[str, Any]], samples: pa.Table) -> Result:
    """Write the tables of a score artefact.

    Args:
        folder: Of the artefact.
        rows: Of `SCORES`.
        samples: Of `MODEL_SAMPLES`.

    Returns:
        The scores as metrics, and the check that every score can be one.
    """
    SCORES.write(folder, rows)
    MODEL_SAMPLES.write(folder, samples)
    # Spearman's correlation of an STS task may be negative. NaN compares as false, so it fails the check, too.
    in_range = all(-1 <= row["score"] <= 1 for row in rows)
    return Result(
        metrics={"scores": [{name: row[name] for name in SHOWN} for row in rows], "mteb": rows[0]["mteb"]},
        checks=(Check(IN_RANGE.name, in_range, "every score lies between 0 and 1, correlations above -1"),),
    )


def show_model(artefact: Artefact) -> Mapping[str, Shown]:
    """The scores of one model: a table, and a figure per task at the largest dimension."""
    rows = artefact.manifest.metrics["scores"]
    cells = [[row["task"], row["dimension"], f"{100 * row['score']:.2f}"] for row in rows]
    largest = max((row["dimension"] for row in rows), default=0)
    return {
        "scores": Markdown(markdown_table(["task", "dimension", "score x 100"], cells)),
        **{row["task"]: 100 * row["score"] for row in rows if row["dimension"] == largest},
    }


def show_models(artefact: Artefact) -> Mapping[str, Shown]:
    """A table of the scores of several models."""
    rows = artefact.manifest.metrics["scores"]
    cells = [[row["model"], row["dimension"], row["task"], f"{100 * row['score']:.2f}"] for row in rows]
    return {"scores": Markdown(markdown_table(["model", "dimension", "task", "score x 100"], cells))}


def present_scores(
    of: str, group: Group = "evaluation", show: Callable[[Artefact], Mapping[str, Shown]] = show_model
) -> Presentation:
    """How a step of scores shows itself.

    Args:
        of: What was scored, in Markdown.
        group: Of the step.
        show: What it shows of its artefact.
    """
    return Presentation(
        group=group, description=f"{MTEB} scores of {of}.", kinds=frozenset({"mteb"}), checks=(IN_RANGE,), show=show
    )


def compare_scores(before: Artefact, _its_workspace: Workspace, now: Artefact, _workspace: Workspace) -> Deviation:
    """The largest difference of a score, in points of 100; 100 where only one artefact has the score.

    Args:
        before: The artefact that is reproduced.
        now: Its reproduction.

    Returns:
        Whether the difference is within `SCORE_TOLERANCE`, and what was measured.
    """
    keys = ["model", "dimension", "task"]
    first, second = (pl.read_parquet(each.folder / SCORES.file).select(*keys, "score") for each in (before, now))
    # A full join, so that a task or dimension that only one side has is counted, by the null that it leaves.
    joined = first.join(second, on=keys, how="full", suffix="_now", coalesce=True)
    points = float((100 * (joined["score"] - joined["score_now"]).abs()).fill_null(100).to_numpy().max())
    measured = f"a score differs by {points:.2f} points, tolerance {SCORE_TOLERANCE:g}"
    return Deviation(points <= SCORE_TOLERANCE, measured)
