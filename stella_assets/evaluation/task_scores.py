"""The score of one model on one task: an artefact of its own, found by everything that decides it."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.evaluation.kinds import TaskKind
from stella_assets.evaluation.tables import MODEL_SAMPLES, SAMPLES
from stella_assets.evaluation.tasks import EvaluationTask, fresh
from stella_assets.storage.canonical import digest
from stella_assets.storage.tables import write_table

if TYPE_CHECKING:
    from stella_assets.evaluation.encoders import Embedder, EncoderIdentity
    from stella_assets.evaluation.samples import Evidence, Samples

CODE_VERSION = "2"
FAMILY = "task_scores"
SCORE_FILE = "score.json"
SAMPLES_FILE = "samples.parquet"
RESULT_FILE = "result.json"
DIGITS = 6
"""Scores are kept to a millionth, so that the last bits of a matrix product do not make another artefact."""


@dataclass(frozen=True)
class TaskScore:
    """A score and what it consists of.

    Attributes:
        result: mteb's.
        row: Of `SCORES`.
        samples: Of `MODEL_SAMPLES`.
    """

    result: Any
    row: Mapping[str, Any]
    samples: list[pa.Table]


class TaskScorer:
    """Scores models on one task. A score that exists is found by everything that decides it, whatever the model's name.

    So a run that was killed continues at the next task, and of a recipe with one task more, only that task is scored.

    Args:
        recipe: Name of the recipe.
        task: The task.
        context: What the scores are parts of.
    """

    def __init__(self, recipe: str, task: EvaluationTask, context: BuildContext) -> None:
        self._recipe = recipe
        self._task = task
        self._context = context
        self._loaded: dict[str, Any] = {}

    def close(self) -> None:
        """Free the task's data; the next score loads it again."""
        self._loaded = {}

    def score(self, model: str, embedder: Embedder) -> TaskScore:
        """The score of a model, found or computed.

        Args:
            model: Name of the model.
            embedder: At one dimension.

        Returns:
            Score and samples; of an aggregate task, the combined score and the samples of all parts.
        """
        made = {part.name: self._make(part, model, embedder) for part in self._task.scored_parts()}
        prompts = prompts_of(embedder, self._task.scored_parts()[0])
        sizes = {
            "dimension": embedder.dim,
            "query_prompt": prompts["query"],
            "document_prompt": prompts["document"],
        }
        return join_scores(model, self._task, embedder.identity(), sizes, made)

    def _make(self, part: EvaluationTask, model: str, embedder: Embedder) -> Artefact:
        import mteb

        from stella_assets.evaluation.encoders import MtebEncoder

        # The model's name is not part of it: the weights are, so equal models share a score.
        identity = {
            **part.describe(),
            "loader": asdict(embedder.identity()),
            "prompts": prompts_of(embedder, part),
            "dimension": embedder.dim,
            "mteb": mteb.__version__,
        }

        def build(context: BuildContext) -> Result:
            # The digest as revision: mteb sees another model whenever anything that decides the score has changed.
            return self._evaluate(part, MtebEncoder(embedder, model, digest(identity)), context)

        return self._context.make_part(
            Step(
                recipe=self._recipe,
                name=f"{FAMILY}/{part.name}",
                code_version=CODE_VERSION,
                settings=identity,
                build=build,
            )
        )

    def _evaluate(self, part: EvaluationTask, encoder: Any, context: BuildContext) -> Result:
        from stella_assets.evaluation.samples import collect

        # One part at a time is in memory; all models are scored on it before the next task is loaded.
        if part.name not in self._loaded:
            self._loaded = {part.name: part.load()}
        # A fresh copy per model: a running random stream would make scores depend on the order of the models.
        task = fresh(self._loaded[part.name])
        with tempfile.TemporaryDirectory() as folder:
            writes = part.kind is not None and part.kind.WRITES_PREDICTIONS
            evidence = evaluate(encoder, task, Path(folder), writes_predictions=writes)
            samples = collect(part.kind, task, evidence)
        return write_score(context.folder, evidence.result, samples)


def evaluate(model: Any, task: Any, folder: Path, *, writes_predictions: bool) -> Evidence:
    """Run mteb.

    Args:
        model: An `MtebEncoder`, or any model that mteb can evaluate; its own type asks for more than it uses.
        task: With its data. It is changed: score a fresh copy.
        folder: For the predictions.
        writes_predictions: Whether mteb writes them.

    Returns:
        mteb's result and what it left behind.
    """
    import datasets
    import mteb

    from stella_assets.evaluation.samples import Evidence, watch_queries

    # mteb logs and shows progress per batch and experiment; the bar over tasks replaces both.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    per_query = watch_queries(task)
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The task .* is superseded")  # benchmarks keep the tasks of their time
        results = mteb.evaluate(
            model,
            task,
            # The artefact is the cache. mteb's would also find scores that other code versions have made.
            cache=None,
            # It is an optional package, and its figures differ from run to run.
            co2_tracker=False,
            show_progress_bar=False,
            prediction_folder=folder if writes_predictions else None,
        )
    return Evidence(results.task_results[0], folder, per_query)


def write_score(folder: Path, result: Any, samples: Samples) -> Result:
    """Write a score, its samples and mteb's result.

    Args:
        folder: Of the artefact.
        result: mteb's.
        samples: That the score consists of.
    """
    # The result has run times in it, so only score and samples are hashed.
    score = {"score": round(float(result.get_score()), DIGITS), "statistic": samples.statistic}
    (folder / SCORE_FILE).write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    (folder / RESULT_FILE).write_text(result_json(result), encoding="utf-8")
    rows = [{**row, "value": round(row["value"], DIGITS)} for row in samples.rows]
    write_table(folder / SAMPLES_FILE, SAMPLES, rows)
    return Result(metrics=score, unhashed_files=(RESULT_FILE,))


def join_scores(
    model: str, task: EvaluationTask, identity: EncoderIdentity, sizes: Mapping[str, Any], made: Mapping[str, Artefact]
) -> TaskScore:
    """The score of a task of the artefacts of its parts.

    Args:
        model: Name of the model.
        task: That was scored.
        identity: Of the model.
        sizes: `dimension`, `query_prompt` and `document_prompt` of the model on this task.
        made: By name of the part, what `write_score` wrote.

    Returns:
        Score and samples; of an aggregate task, the combined score and the samples of all parts.
    """
    import mteb

    results = [_read_result(artefact) for artefact in made.values()]
    # mteb's own rule for aggregates; a benchmark may define another one than the mean.
    result = task.task.combine_task_results(results) if task.parts else results[0]
    row = {
        "model": model,
        "task": task.name,
        "type": task.type,
        "metric": task.task.metadata.main_score,
        "score": round(float(result.get_score()), DIGITS),
        "data": task.origin,
        "revision": task.revision(),
        "loader": identity.name,
        "weights": identity.weights,
        "dtype": identity.dtype,
        "max_length": identity.max_length,
        "mteb": mteb.__version__,
        **sizes,
    }
    return TaskScore(result, row, [_samples_of_model(row, name, artefact) for name, artefact in made.items()])


def result_json(result: Any) -> str:
    """mteb's result as JSON."""
    return json.dumps(result.model_dump(mode="json"), indent=1)


def prompts_of(embedder: Embedder, task: EvaluationTask) -> dict[str, str | None]:
    """The prompts before the texts of a task, which are queries and documents, or neither."""
    from stella_assets.evaluation.encoders import EncodeRequest

    # A task of no kind still has mteb's attributes, which the base class reads.
    sides = (task.kind or TaskKind).prompt_sides(task.task)
    return {name: embedder.prompt(EncodeRequest(task.task.metadata, side)) for name, side in sides.items()}


def _read_result(artefact: Artefact) -> Any:
    from mteb.results import TaskResult

    return TaskResult.model_validate_json((artefact.folder / RESULT_FILE).read_text(encoding="utf-8"))


def _samples_of_model(row: Mapping[str, Any], part: str, artefact: Artefact) -> pa.Table:
    """The samples of a single score, with the model, the dimension and the task that they belong to."""
    samples = pq.read_table(artefact.folder / SAMPLES_FILE)
    columns = {name: row[name] for name in ("model", "dimension", "task")} | {"part": part}
    columns["statistic"] = artefact.manifest.metrics["statistic"]
    for name, value in columns.items():
        samples = samples.append_column(name, pa.array([value] * len(samples), MODEL_SAMPLES.schema.field(name).type))
    return samples.select(MODEL_SAMPLES.schema.names)
