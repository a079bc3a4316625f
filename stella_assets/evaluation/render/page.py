"""What the report shows, in the order of its page, whatever the format: tables, and values for the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stella_assets.evaluation.ranking.comparison import RetrievalSummary
from stella_assets.evaluation.render import tables
from stella_assets.evaluation.render.retrieval import retrieval_findings, retrieval_rows, retrieval_task_rows
from stella_assets.evaluation.render.tables import Table
from stella_assets.evaluation.summary import Summary


@dataclass(frozen=True)
class Page:
    """The content of the report.

    Attributes:
        description: Of the recipe.
        summary: With speeds.
        mteb: Version.
        vector_stats: Rows of the table `vector_stats`, of all texts.
        lineage: Name, digest, code version and time of each artefact that the report was made of.
        paraphrase_dimension: Of the vectors with paraphrased prompts; None where none were scored.
        retrieval: How retrievers rank; None for a recipe without them.
    """

    description: str
    summary: Summary
    mteb: str
    vector_stats: Sequence[Mapping[str, Any]]
    lineage: list[list[str]]
    paraphrase_dimension: int | None = None
    retrieval: RetrievalSummary | None = None

    def values(self) -> dict[str, Any]:
        """What the templates write into the text."""
        return {
            "description": self.description,
            "summary": self.summary,
            "student": self.summary.student,
            "mteb_version": self.mteb,
            "local": any(task.data == "local" for task in self.summary.tasks),
            "paraphrase_dimension": self.paraphrase_dimension,
            "retrieval_findings": list(retrieval_findings(self.retrieval)) if self.retrieval else [],
        }

    def tables(self) -> dict[str, Table]:
        """The tables by the name that the templates give them; one without rows is left out."""
        summary = self.summary
        found = {
            "score_table": tables.score_rows(summary),
            "task_table": tables.task_rows(summary),
            "cost_table": tables.cost_rows(summary),
            "retention_table": tables.retention_rows(summary),
            "vector_table": tables.vector_rows(self.vector_stats),
            "lineage_table": (["artefact", "digest", "code version", "made at"], self.lineage),
            "quantization_table": tables.quantization_rows(summary),
            "seed_table": tables.seed_rows(summary),
            "paraphrase_table": tables.paraphrase_rows(summary),
            "contamination_table": tables.contamination_rows(summary),
        }
        if self.retrieval:
            found["retrieval_table"] = retrieval_rows(self.retrieval)
            found["retrieval_task_table"] = retrieval_task_rows(self.retrieval)
        if summary.benchmarks:
            found["benchmark_table"] = tables.benchmark_rows(summary)
        if summary.reference_scores:
            found["reference_table"] = tables.reference_rows(summary.reference_scores)
        # The templates test for the name, so an empty table leaves out its heading, too.
        return {name: table for name, table in found.items() if table[1]}
