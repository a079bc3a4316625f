"""Step `evaluation_texts`: every text of the evaluation sets that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from stella_assets.core.step import Artefact, BuildContext, Presentation, Result, Step
from stella_assets.corpus.errors import EvaluationSetError
from stella_assets.corpus.evaluation_index import BANDS_SETTINGS, EvaluationIndex, evaluation_bands
from stella_assets.corpus.evaluation_sets import read_set, set_digest
from stella_assets.corpus.settings import Decontaminate, EvaluationSet
from stella_assets.storage.canonical import digest
from stella_assets.storage.polars import pl
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace

CODE_VERSION = "1"
TEXTS_FILE = "evaluation_texts.parquet"
BANDS_KIND = "evaluation_bands"
COLUMNS = ("set", "task", "split", "role", "text")


@dataclass(frozen=True)
class EvaluationTexts:
    """The texts of the evaluation sets.

    Attributes:
        path: A Parquet file with `set`, `task`, `split`, `role` and `text`.
        digest: Of the artefact.
        bands: Keeps the costly part of the index.
    """

    path: Path
    digest: str
    bands: ShardStore

    @classmethod
    def open(cls, artefact: Artefact, workspace: Workspace) -> EvaluationTexts:
        """The texts of an artefact."""
        return cls(artefact.folder / TEXTS_FILE, artefact.digest, ShardStore(workspace, BANDS_KIND))

    def texts(self) -> pl.Series:
        """All texts; the index names them by their places here."""
        return pl.read_parquet(self.path)["text"]

    def with_policies(self, sets: Iterable[EvaluationSet]) -> pl.DataFrame:
        """All columns in the order of `texts`, and `drops`: whether a corpus text that holds the text is removed."""
        # One row per set and role: a set has two policies, one for queries and one for documents.
        policies = pl.DataFrame(
            [
                (chosen.name, role, policy == "drop")
                for chosen in sets
                for role, policy in (("query", chosen.queries), ("document", chosen.documents))
            ],
            ["set", "role", "drops"],
            orient="row",
        )
        return pl.read_parquet(self.path).join(policies, on=["set", "role"], how="left", maintain_order="left")

    def index(self, settings: Decontaminate) -> EvaluationIndex:
        """An index to find the texts by; its costly part is computed once per artefact."""
        texts = self.texts()
        # Bands depend on the texts only, so recipes with other settings share them.
        key = f"{self.digest}-{digest(BANDS_SETTINGS)}"
        return EvaluationIndex(texts, settings, self.bands.get(key, partial(evaluation_bands, texts)))


def evaluation_texts_step(recipe: str, *, decontaminate: Decontaminate) -> Step[EvaluationTexts]:
    """The step that makes `evaluation_texts`.

    Args:
        recipe: Name of the recipe.
        decontaminate: Names the evaluation sets. Their policies do not decide what is read.
    """
    sets = decontaminate.sets

    def build(context: BuildContext) -> Result:
        return write_texts(sets, context.folder)

    return Step(
        recipe=recipe,
        name="evaluation_texts",
        code_version=CODE_VERSION,
        # The content at `path` is in the external version; policies decide what happens to corpus texts later.
        settings={"sets": [chosen.settings("path", "queries", "documents") for chosen in sets]},
        external_versions=lambda _workspace: {chosen.name: set_digest(chosen) for chosen in sets},
        build=build,
        read=EvaluationTexts.open,
        presentation=Presentation(
            group="corpus",
            kinds=frozenset({"parquet"}),
            description="Every text of the evaluation sets that nobody may train on.",
        ),
    )


def write_texts(sets: Sequence[EvaluationSet], folder: Path) -> Result:
    """Write `evaluation_texts.parquet`: each text once per set, task, split and role.

    Args:
        sets: The evaluation sets.
        folder: Of the artefact.

    Returns:
        Counts of texts, in total and by task, as metrics.

    Raises:
        EvaluationSetError: A set cannot be read, or all of them together have no text.
    """
    rows = chain.from_iterable(read_set(chosen) for chosen in sets)
    frame = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row").filter(
        pl.col("text").str.strip_chars() != ""
    )
    # Sorted by all columns: the index and stored matches name texts by their places.
    frame = frame.unique().sort(*COLUMNS)
    if frame.is_empty():
        raise EvaluationSetError(
            "corpus.decontaminate.sets: they have no text.", "Correct `path`, `tasks` or `splits`."
        )
    frame.write_parquet(folder / TEXTS_FILE, compression="zstd")
    counts = frame.group_by("task").len().sort("task")
    return Result(metrics={"texts": len(frame), "tasks": dict(counts.iter_rows())})
