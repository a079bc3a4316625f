"""The steps `retriever/<name>`: each trains a retriever on lists of candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from stella_assets.core.config import ModelSource
from stella_assets.core.manifest import Manifest
from stella_assets.core.models import model_digest
from stella_assets.core.step import Artefact, BuildContext, Deviation, Presentation, Result, Step
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.probe import probe_rows
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.settings import SavedStudent
from stella_assets.students.retriever import SavedRetriever
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.teachers.scorers.step import PairScoreTable
from stella_assets.training.job import run_as_job
from stella_assets.training.retrievers.base import RetrieverConfig
from stella_assets.training.retrievers.inputs import RetrieverInputs
from stella_assets.training.stage import DEV_LOSS_FELL, show_loss
from stella_assets.training.train import MODEL_FOLDER

OWN_MODEL = "own_model"
"""The external version that names the model which a retriever begins with, where that is not the student."""


def retriever_step(  # noqa: PLR0913 (one per dependency and setting)
    recipe: str,
    *,
    retriever: RetrieverConfig,
    student: ModelSource,
    seed: int,
    corpus: Step[CorpusTexts],
    pairs: Step[PairTables],
    mined_negatives: Step[MinedNegatives] | None,
    scores: Step[PairScoreTable] | None,
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
        def folder(step: Step[Any] | None) -> Any:
            return None if step is None else context.artefact(step).folder

        inputs = RetrieverInputs(
            name=name,
            retriever=retriever,
            source=own_model or student,
            saved=None if own_model else context.read(stage).folder,
            seed=seed,
            corpus=folder(corpus),
            pairs=folder(pairs),
            mined_negatives=folder(mined_negatives),
            scores=folder(scores),
            folder=context.folder,
            scratch=context.scratch,
            workspace=context.workspace,
            compute=context.compute,
        )
        # The same code either way, so the processes that train are not part of the identity.
        return inputs.run(context.log) if context.launch is None else run_as_job(inputs, context.launch)

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
        code_version=retriever.code_version,
        settings={
            "seed": seed,
            # What `scores` names is a dependency, and its name does not matter.
            # What it must show to be released, and what is searched with it, does not change it.
            "retriever": retriever.settings("name", "scores", "start", "min_gain", "index", "rerank_k"),
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
        estimate=lambda _runner, last, size: retriever.estimate(last, size),
        tells=lambda last: _trains_alike(last, retriever),
        compare=compare,
    )


def _trains_alike(last: Manifest, retriever: RetrieverConfig) -> bool:
    """Whether the time of a training tells that of another one: lists of as many candidates, and as many of them."""
    then = last.identity.settings["retriever"]
    return all(then.get(key) == getattr(retriever, key) for key in ("kind", "candidates", "batch_size"))
