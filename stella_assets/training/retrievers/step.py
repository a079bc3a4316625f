"""The steps `retriever/<name>`: each trains a retriever on lists of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from stella_assets.core.config import ModelSource
from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.models import model_digest
from stella_assets.core.seeds import seed_of
from stella_assets.core.step import Artefact, BuildContext, Deviation, Presentation, Result, Step
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.probe import probe_rows
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.settings import SavedStudent
from stella_assets.students.retriever import SavedRetriever
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.training.retrievers.base import RetrieverConfig, RetrieverError
from stella_assets.training.retrievers.candidates import Candidates, find_candidates
from stella_assets.training.sizes import STATES
from stella_assets.training.stage import DEV_LOSS_FELL, show_loss
from stella_assets.training.tables import RETRIEVER_LOG
from stella_assets.training.train import MODEL_FOLDER

# Part of the identity of every retriever: a new value trains all of them again.
CODE_VERSION = "1"
SPLITS = ("train", "dev")
OWN_MODEL = "own_model"
"""The external version that names the model which a retriever begins with, where that is not the student."""


class ScoreTable(Protocol):
    """What `pair_scores/<name>` reads as."""

    def scores(self) -> pl.DataFrame:
        """`query`, `document` and `score`, and more."""


def retriever_step(  # noqa: PLR0913 (one per dependency and setting)
    recipe: str,
    *,
    retriever: RetrieverConfig,
    student: ModelSource,
    seed: int,
    corpus: Step[CorpusTexts],
    pairs: Step[PairTables],
    mined_negatives: Step[MinedNegatives] | None,
    scores: Step[Any] | None,
    stage: Step[SavedStudent],
) -> Step[SavedRetriever]:
    """The step that trains a retriever.

    Args:
        recipe: Name of the recipe.
        retriever: Its settings.
        student: Base model of the student.
        seed: Of what is new, and of the order of the lists.
        corpus: The texts.
        pairs: The pairs.
        mined_negatives: Negatives of their queries; None where the recipe mines none.
        scores: What it learns from; None for the pairs alone.
        stage: The last stage, whose encoder it begins with unless it has a model of its own.

    Returns:
        A step whose artefact is a saved retriever and the log of its training.
    """
    name = f"retriever/{retriever.name}"
    own_model = retriever.start
    optional = (mined_negatives, scores, stage if own_model is None else None)

    def build(context: BuildContext) -> Result:
        texts = context.read(corpus)
        found = _find(
            name,
            retriever,
            texts,
            context.read(pairs),
            context.read(mined_negatives).negatives() if mined_negatives else None,
            context.read(scores).scores() if scores else None,
        )
        for split, lists in found.items():
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in lists.dropped.items() if count)
            context.log.info(f"{name}: {len(lists.query_N):,} {split} lists; left out: {dropped or 'none'}")
        _require_lists(name, retriever, found)
        saved = None if own_model else context.read(stage).folder
        return _train(name, retriever, own_model or student, saved, seed, found, texts, context)

    def read(artefact: Artefact, _workspace: Workspace) -> SavedRetriever:
        return SavedRetriever(artefact.folder / MODEL_FOLDER, retriever.begun_with(student))

    def compare(before: Artefact, workspace: Workspace, now: Artefact, workspace_now: Workspace) -> Deviation:
        from stella_assets.training.reproduced import compare_retrievers

        texts = CorpusTexts(workspace_now.current(corpus.recipe, corpus.name).resolve())
        rows = probe_rows(pl.DataFrame(texts.table(["id", "split", "role"])))
        probes = texts.take(np.sort(rows), ["text"])["text"].to_pylist()
        return compare_retrievers(read(before, workspace), read(now, workspace_now), probes)

    return Step(
        recipe=recipe,
        name=name,
        code_version=CODE_VERSION,
        settings={
            "seed": seed,
            # What `scores` names is a dependency, and its name does not matter.
            # What it must show to be released does not change it.
            "retriever": retriever.settings("name", "scores", "start", "min_gain"),
            **({} if own_model is None else {OWN_MODEL: own_model.settings("model", "revision")}),
        },
        build=build,
        presentation=Presentation(
            group="training",
            description=retriever.describe(),
            kinds=frozenset({"pytorch"}),
            checks=(DEV_LOSS_FELL,),
            show=show_loss,
        ),
        read=read,
        dependencies=(corpus, pairs, *(step for step in optional if step is not None)),
        external_versions=None if own_model is None else lambda _workspace: {OWN_MODEL: model_digest(own_model)},
        pool="training",
        estimate=lambda _runner, last, _size: retriever.estimate(last),
        tells=lambda last: _trains_alike(last, retriever),
        compare=compare,
    )


def _trains_alike(last: Manifest, retriever: RetrieverConfig) -> bool:
    """Whether the time of a training tells that of another one: lists of as many candidates, and as many of them."""
    then = last.identity.settings["retriever"]
    return all(then.get(key) == getattr(retriever, key) for key in ("kind", "candidates", "batch_size"))


def _find(
    name: str,
    retriever: RetrieverConfig,
    texts: CorpusTexts,
    tables: PairTables,
    mined: pl.DataFrame | None,
    scores: pl.DataFrame | None,
) -> dict[str, Candidates]:
    ids = pl.Series(texts.table(["id"])["id"])
    stated = [tables.negatives()] + ([] if mined is None else [mined])
    if retriever.least > 1 and not any(len(table) for table in stated):
        raise RetrieverError(
            f"{name}: its losses compare candidates of a query, and there are no negatives.",
            "Add `mined_negatives` to the recipe, or map `negatives` in the columns of a source.",
        )
    of_split = {split: pl.col("split") == split for split in SPLITS}
    return {
        split: find_candidates(
            ids,
            tables.pairs().filter(chosen),
            [table.filter(chosen) for table in stated],
            scores,
            most=retriever.candidates,
            least=retriever.least,
        )
        for split, chosen in of_split.items()
    }


def _require_lists(name: str, retriever: RetrieverConfig, found: Mapping[str, Candidates]) -> None:
    for split, least in (("train", retriever.batch_size), ("dev", 1)):
        lists = found[split]
        if (count := len(lists.query_N)) < least:
            dropped = ", ".join(f"{number:,} {reason}" for reason, number in lists.dropped.items() if number)
            raise RetrieverError(
                f"{name}: there are {count} lists of {split} pairs, and it needs {least} (left out: "
                f"{dropped or 'none'}).",
                "Lower `batch_size`, or add pairs, negatives or scores.",
            )


def _train(
    name: str,
    settings: RetrieverConfig,
    source: ModelSource,
    saved: Path | None,
    seed: int,
    found: Mapping[str, Candidates],
    texts: CorpusTexts,
    context: BuildContext,
) -> Result:
    from stella_assets.training.retrievers.lists import CandidateLists
    from stella_assets.training.retrievers.loop import RetrieverTraining
    from stella_assets.training.retrievers.texts import Texts

    wanted = np.unique(np.concatenate([lists.texts for lists in found.values()]))
    read = Texts(texts, wanted, context.scratch / "texts.arrow")
    deviation, center = found["train"].deviation, found["train"].center
    data = {split: CandidateLists(lists, read, deviation, center) for split, lists in found.items()}
    retriever = settings.initialise(source, saved, seed_of(seed, name, "new"), context.compute)
    # Asked before training, not found out at the first checkpoint. 4 bytes: weights are float32 on every device.
    parameters = sum(p.numel() for p in retriever.model.parameters())
    context.workspace.require_space(
        parameters * 4 * STATES,
        f"{name}, a model of {parameters * 4 / 2**20:,.0f} MiB with its optimiser and its checkpoints,",
        context.scratch,
    )
    training = RetrieverTraining(
        name, settings, retriever, data, seed_of(seed, name, "order"), context.scratch, context.log
    )
    trained = training.run()
    retriever.save(context.folder / MODEL_FOLDER)
    RETRIEVER_LOG.write(context.folder, trained.log)
    dev: dict[tuple[int, str], Any] = {
        (row["step"], row["term"]): row["value"] for row in trained.log if row["split"] == "dev"
    }
    before, kept = dev[0, "total"], trained.kept_step
    # Without step 0: the check asks whether training lowered the loss, also where step 0 is what is kept.
    lowest = min(value for (step, term), value in dev.items() if step and term == "total")
    return Result(
        metrics={
            "kind": settings.kind,
            "lists_train": len(data["train"]),
            "lists_dev": len(data["dev"]),
            "lists_left_out": {split: lists.dropped for split, lists in found.items()},
            "score_deviation": deviation,
            "score_mean": center,
            "steps": trained.steps,
            "batch_size": settings.batch_size,
            "kept_step": kept,
            "lists_seen": trained.lists,
            "lists_per_second": round(trained.lists_per_second, 1),
            "resumed_at_step": trained.resumed_at,
            "dev_loss_before": round(before, 4),
            "dev_loss_after": round(dev[kept, "total"], 4),
            "dev_answer_first_before": round(dev[0, "answer_first"], 4),
            "dev_answer_first_after": round(dev[kept, "answer_first"], 4),
            "parameters": parameters,
        },
        checks=(
            Check(
                "dev_loss_fell",
                lowest < before,
                f"dev loss {before:.4f} -> {lowest:.4f}",
                {"before": before, "lowest": lowest},
            ),
        ),
    )
