"""How one model ranks the documents of one task: an artefact of its own, found by everything that decides it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.core.step import Artefact, BuildContext, Result, Step
from stella_assets.evaluation.tables import PART_MEASURES, PART_RANKINGS, QUERY_MEASURES, RANKINGS
from stella_assets.evaluation.task_scores import DIGITS, TaskScore, evaluate, join_scores, write_score
from stella_assets.evaluation.tasks import EvaluationTask, fresh
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.storage.tables import write_table
from stella_assets.training.retrievers.base import DEPTH

if TYPE_CHECKING:
    from stella_assets.evaluation.ranking.rankers import Ranker
    from stella_assets.evaluation.samples import PerQuery

CODE_VERSION = "1"
FAMILY = "ranking_scores"
NDCG, MAP, RECALL = "ndcg_at_10", "map_at_100", "recall_at_100"
MEASURES = {NDCG: "ndcg_cut_10", MAP: f"map_cut_{DEPTH}", RECALL: f"recall_{DEPTH}"}
"""What is kept of each query, by trec_eval's names."""
RANKING_TYPES = ("Retrieval", "Reranking")
"""mteb's types of the tasks that rank documents; of the second, each query comes with its candidates."""


@dataclass(frozen=True)
class RankedTask:
    """How a model ranks the documents of a task.

    Attributes:
        score: mteb's main score, with its samples.
        measures: Rows of `QUERY_MEASURES`.
        rankings: Rows of `RANKINGS`: the first documents of each query.
    """

    score: TaskScore
    measures: list[pa.Table]
    rankings: list[pa.Table]


class RankingScorer:
    """Scores models on one task of a type of `RANKING_TYPES`, with the measures of each query.

    Args:
        recipe: Name of the recipe.
        task: The task.
        context: What the scores are parts of.
        candidates: What a first step found, rows of `RANKINGS`; for models that do not search.
    """

    def __init__(
        self, recipe: str, task: EvaluationTask, context: BuildContext, candidates: pl.DataFrame | None = None
    ) -> None:
        self._recipe, self._task, self._context, self._candidates = recipe, task, context, candidates
        self._loaded: dict[str, Any] = {}

    def close(self) -> None:
        """Free the task's data; the next score loads it again."""
        self._loaded = {}

    def score(self, model: str, ranker: Ranker) -> RankedTask:
        """The score of a model, found or computed.

        Args:
            model: Name of the model.
            ranker: The model.
        """
        parts = self._task.scored_parts()
        made = {part.name: self._make(part, model, ranker) for part in parts}
        prompts = ranker.prompts(parts[0])
        sizes = {
            "dimension": ranker.dim,
            "query_prompt": prompts["query"],
            "document_prompt": prompts["document"],
        }
        score = join_scores(model, self._task, ranker.identity(), sizes, made)
        named = {"model": model, "dimension": ranker.dim, "task": self._task.name}
        measures, rankings = (
            [_named(each.folder / table.file, table.schema, named | {"part": part}) for part, each in made.items()]
            for table in (QUERY_MEASURES, RANKINGS)
        )
        return RankedTask(score, measures, rankings)

    def _make(self, part: EvaluationTask, model: str, ranker: Ranker) -> Artefact:
        import mteb

        candidates = self._candidates_of(part, ranker)
        identity = {
            **part.describe(),
            "loader": asdict(ranker.identity()),
            "prompts": dict(ranker.prompts(part)),
            "dimension": ranker.dim,
            "mteb": mteb.__version__,
            "candidates": None if candidates is None else digest(candidates),
        }

        def build(context: BuildContext) -> Result:
            encoder = ranker.mteb_model(model, digest(identity))
            return self._evaluate(part, encoder, candidates, context)

        return self._context.make_part(
            Step(
                recipe=self._recipe,
                name=f"{FAMILY}/{part.name}",
                code_version=CODE_VERSION,
                settings=identity,
                build=build,
            )
        )

    def _candidates_of(self, part: EvaluationTask, ranker: Ranker) -> dict[str, Any] | None:
        """In the form of mteb's predictions; None where the model searches or the task has candidates of its own."""
        if ranker.reranks is None or part.type != "Retrieval":
            return None
        assert self._candidates is not None, "a model that does not search gets candidates"
        rows = self._candidates.filter(pl.col("rank") <= ranker.reranks, task=self._task.name, part=part.name)
        return predictions(rows.sort("rank").to_dicts())

    def _evaluate(
        self, part: EvaluationTask, encoder: Any, candidates: dict[str, Any] | None, context: BuildContext
    ) -> Result:
        from stella_assets.evaluation.samples import collect

        if part.name not in self._loaded:
            self._loaded = {part.name: part.load()}
        task = fresh(self._loaded[part.name])
        rankings = watch_rankings(task)
        with tempfile.TemporaryDirectory() as folder:
            if candidates is not None:
                pairs = sum(
                    len(found) for splits in candidates.values() for by in splits.values() for found in by.values()
                )
                context.log.info(f"{part.name}: {pairs:,} pairs of a query and a document are scored")
                to_second_step(task, candidates, Path(folder))
            evidence = evaluate(encoder, task, Path(folder), writes_predictions=False)
            result = write_score(context.folder, evidence.result, collect(part.kind, task, evidence))
        write_table(context.folder / QUERY_MEASURES.file, PART_MEASURES, list(_measure_rows(evidence.per_query)))
        write_table(context.folder / RANKINGS.file, PART_RANKINGS, rankings)
        return result


def watch_rankings(task: Any) -> list[dict[str, Any]]:
    """Make a retrieval task record the first documents of each query while it is scored.

    Args:
        task: The instance that will be scored. It is changed.

    Returns:
        A list that fills with rows of `PART_RANKINGS` while the task is scored.
    """
    noted: list[dict[str, Any]] = []
    original = task.task_specific_scores

    def note(scores: Any, judged: Any, results: Any, *, hf_split: str, hf_subset: str) -> Any:
        for query, found in results.items():
            # By score, then by name: the order of equal scores must not depend on the order of a search.
            best = sorted(found, key=lambda document: (-found[document], document))[:DEPTH]
            noted.extend(
                {"subset": hf_subset, "split": hf_split, "query": query, "document": document, "rank": rank}
                for rank, document in enumerate(best, 1)
            )
        return original(scores, judged, results, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = note
    return noted


def predictions(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Rankings in the form of mteb's predictions: by subset, split and query, the score of each document.

    Args:
        rows: Of `RANKINGS`, of one part.
    """
    found: dict[str, Any] = {}
    for row in rows:
        queries = found.setdefault(row["subset"], {}).setdefault(row["split"], {})
        queries.setdefault(row["query"], {})[row["document"]] = -row["rank"]
    return found


def to_second_step(task: Any, candidates: Mapping[str, Any], folder: Path) -> None:
    """Have a retrieval task rank what a first step found, by mteb's own rule.

    Args:
        task: With its data. It is changed, and its data is not.
        candidates: What `predictions` gives.
        folder: For the file that mteb reads.
    """
    # mteb writes the candidates into the data, which other models search as a whole.
    task.dataset = {
        subset: {split: dict(data) for split, data in splits.items()} for subset, splits in task.dataset.items()
    }
    path = folder / task.prediction_file_name
    path.write_text(json.dumps({"mteb_model_meta": {}, **candidates}), encoding="utf-8")
    task.convert_to_reranking(path, top_k=DEPTH)


def _measure_rows(per_query: PerQuery) -> Iterator[dict[str, Any]]:
    for (subset, split), queries in per_query.items():
        for query, found in queries.items():
            for measure, name in MEASURES.items():
                value = round(float(found[name]), DIGITS)
                yield {"measure": measure, "subset": subset, "split": split, "query": query, "value": value}


def _named(path: Path, schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """A part's table with the model and the task that it belongs to."""
    table = pq.read_table(path)
    for name, value in columns.items():
        table = table.append_column(name, pa.array([value] * len(table), schema.field(name).type))
    return table.select(schema.names)
