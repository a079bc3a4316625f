"""Training a retriever in this process, which may be one of several that a launcher started for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stella_assets.core.devices import processes
from stella_assets.core.manifest import Check
from stella_assets.core.seeds import seed_of
from stella_assets.core.step import Log, Result
from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.polars import pl
from stella_assets.teachers.mined_negatives import MinedNegatives
from stella_assets.teachers.scorers.step import PairScoreTable
from stella_assets.training.retrievers.base import RetrieverConfig, RetrieverError
from stella_assets.training.retrievers.candidates import Candidates, find_candidates
from stella_assets.training.retrievers.inputs import RetrieverInputs
from stella_assets.training.retrievers.lists import CandidateLists
from stella_assets.training.retrievers.loop import RetrieverTraining, TrainedRetriever
from stella_assets.training.retrievers.texts import Texts
from stella_assets.training.sizes import STATES
from stella_assets.training.tables import RETRIEVER_LOG
from stella_assets.training.train import MODEL_FOLDER, select_device

SPLITS = ("train", "dev")


def train_retriever(inputs: RetrieverInputs, log: Log) -> Result:
    """Train a retriever, and write it and the log of its training.

    Args:
        inputs: What it needs.
        log: For people.

    Returns:
        Metrics, and the check that the dev loss fell.

    Raises:
        UserError: There is too little to learn from, the training diverged, or the model cannot be used.
        DiskSpaceError: The disk that checkpoints are written to has too little space.
    """
    select_device(inputs.compute)
    name, settings = inputs.name, inputs.retriever
    corpus = CorpusTexts(inputs.corpus)
    found = find_lists(
        name,
        settings,
        corpus,
        PairTables(inputs.pairs),
        MinedNegatives(inputs.mined_negatives).negatives() if inputs.mined_negatives else None,
        PairScoreTable(inputs.scores).scores() if inputs.scores else None,
    )
    state = processes(inputs.compute)
    for split, lists in found.items() if state.is_main_process else ():
        log.info(f"{name}: {len(lists.query_N):,} {split} lists; left out: {_dropped(lists)}")
    require_lists(name, settings, found)
    wanted = np.unique(np.concatenate([lists.texts for lists in found.values()]))
    # One process writes the file, the others find it.
    with state.main_process_first():
        texts = Texts(corpus, wanted, inputs.scratch / "texts.arrow")
    deviation, center = found["train"].deviation, found["train"].center
    data = {split: CandidateLists(lists, texts, deviation, center) for split, lists in found.items()}
    seeds = {stream: seed_of(inputs.seed, name, stream) for stream in ("new", "order")}
    retriever = settings.initialise(inputs.source, inputs.saved, seeds["new"], inputs.compute)
    parameters = sum(p.numel() for p in retriever.model.parameters())
    # Asked before training, not found out at the first checkpoint. 4 bytes: weights are float32 on every device.
    inputs.workspace.require_space(
        parameters * 4 * STATES,
        f"{name}, a model of {parameters * 4 / 2**20:,.0f} MiB with its optimiser and its checkpoints,",
        inputs.scratch,
    )
    training = RetrieverTraining(name, settings, retriever, data, seeds["order"], inputs.scratch, log, state)
    trained = training.run()
    # Every process has the weights; two writers of one folder would damage it.
    if state.is_main_process:
        retriever.save(inputs.folder / MODEL_FOLDER)
        RETRIEVER_LOG.write(inputs.folder, trained.log)
    return _result(settings, trained, found, parameters)


def find_lists(
    name: str,
    retriever: RetrieverConfig,
    corpus: CorpusTexts,
    tables: PairTables,
    mined: pl.DataFrame | None,
    scores: pl.DataFrame | None,
) -> dict[str, Candidates]:
    """The lists of each split that is learnt from or measured.

    Args:
        name: For messages.
        retriever: Its settings.
        corpus: The texts.
        tables: The pairs, and the negatives that the sources state.
        mined: Negatives that were mined for them; None for none.
        scores: Of queries with their candidates; None for none.

    Raises:
        RetrieverError: A loss needs negatives, and there are none.
    """
    ids = pl.Series(corpus.table(["id"])["id"])
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


def require_lists(name: str, retriever: RetrieverConfig, found: Mapping[str, Candidates]) -> None:
    """Make sure that there are enough lists.

    Raises:
        RetrieverError: There are too few.
    """
    for split, least in (("train", retriever.batch_size), ("dev", 1)):
        if (count := len(found[split].query_N)) < least:
            raise RetrieverError(
                f"{name}: there are {count} lists of {split} pairs, and it needs {least} (left out: "
                f"{_dropped(found[split])}).",
                "Lower `batch_size`, or add pairs, negatives or scores.",
            )


def _dropped(lists: Candidates) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in lists.dropped.items() if count) or "none"


def _result(
    settings: RetrieverConfig, trained: TrainedRetriever, found: Mapping[str, Candidates], parameters: int
) -> Result:
    dev: dict[tuple[int, str], Any] = {
        (row["step"], row["term"]): row["value"] for row in trained.log if row["split"] == "dev"
    }
    before, kept = dev[0, "total"], trained.kept_step
    # Without step 0: the check asks whether training lowered the loss, also where step 0 is what is kept.
    lowest = min(value for (step, term), value in dev.items() if step and term == "total")
    return Result(
        metrics={
            "kind": settings.kind,
            **{f"lists_{split}": len(lists.query_N) for split, lists in found.items()},
            "lists_left_out": {split: lists.dropped for split, lists in found.items()},
            "score_deviation": found["train"].deviation,
            "score_mean": found["train"].center,
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
