"""The method `contrastive`: its batches, its anchor, its gradient in parts, and resuming."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stella_assets.corpus.pairs import PairTables
from stella_assets.corpus.tables import PAIR_NEGATIVES, PAIRS, SCORED_PAIRS
from stella_assets.recipe import parse_recipe
from stella_assets.recipe.read import RecipeError
from stella_assets.storage.polars import pl
from stella_assets.storage.workspace import Workspace
from stella_assets.students import DenseConfig
from stella_assets.students.dense.model import DenseStudent
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.training import checkpoint, loop
from stella_assets.training.data import Reading
from stella_assets.training.dead_losses import DEAD_STEPS, DeadLossError, Watch
from stella_assets.training.objective import IN_COSINES
from stella_assets.training.pairs import PairFeed, PairRows
from stella_assets.training.stages.base import StageContext, StageError
from stella_assets.training.stages.contrastive import Contrastive
from stella_assets.training.stages.descent import Descent
from stella_assets.training.tokens import TokenTable
from tests.conftest import TINY
from tests.training.conftest import DEV, TEXTS, Lesson

LOSSES = {"cosine": 10, "info_nce": 1, "soft_kl": 1, "cosent": 0.2, "angle": 0.2, "spread_out": 0.1}


def text_id(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Texts 0 to 39 are dev texts. Query n is answered by n + 1, for every even n; every fifth pair has a score."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [
        {"query": text_id(n), "other": text_id(n + 1), "split": "dev" if n < DEV else "train", "score": n % 7}
        for n in range(0, TEXTS, 2)
    ]
    plain = [{**row, "positive": row["other"]} for n, row in enumerate(rows) if n % 5]
    scored = [{**row, "document": row["other"]} for n, row in enumerate(rows) if not n % 5]
    more = [{"query": text_id(100), "positive": text_id(141), "split": "train"}]
    gone = [{"query": "f" * 32, "positive": text_id(141), "split": "train"}]
    negatives = [
        {"query": row["query"], "negative": text_id((int(row["query"], 16) + step) % 200 + 40), "rank": rank,
         "split": "train"}
        for row in plain for rank, step in ((1, 31), (2, 63)) if row["split"] == "train"
    ]  # fmt: skip
    for table, content in ((PAIRS, plain + more + gone), (SCORED_PAIRS, scored), (PAIR_NEGATIVES, negatives)):
        table.write(folder, [{name: row.get(name) for name in table.schema.names} for row in content])
    return folder


def stage_of(**changes: Any) -> Contrastive:
    raw = {**TINY["stages"][2], "method": "contrastive", "full_head": LOSSES, "matryoshka_heads": {"similarity": 20}}
    # One layer: checkpoints with the embeddings would take most of the time.
    sizes = {"train_layers": 1, "batch_size": 8, "steps": 3, "checkpoint_every": 2}
    return Contrastive.model_validate({**raw, **sizes, **changes})


def context(lesson: Lesson, student: DenseStudent, folder: Path, pairs: Path) -> StageContext:
    return replace(lesson.context(student, folder), pairs=pairs)


def train(lesson: Lesson, student: DenseStudent, stage: Contrastive, folder: Path, pairs: Path) -> loop.Trained:
    return loop.train(stage, context(lesson, student, folder, pairs))


def test_a_batch_has_each_text_once_and_knows_what_answers_what(lesson, pairs):
    data = lesson.data()["train"]
    tables = PairTables(pairs)
    rows = PairRows(tables, data, "train", 1, [tables.negatives()])
    assert (rows.pairs, rows.scored, rows.left_out) == (81, 20, 1)
    (batch,) = PairFeed(data, rows).read([np.arange(60)], Reading())
    found = batch.targets.require_pairs()
    ids = data.ids(batch.positions_B)
    assert len(set(ids)) == len(ids)
    known = set(tables.pairs().select("query", "positive").iter_rows())
    wrong = {(q, n) for q, n, rank in tables.negatives().select("query", "negative", "rank").iter_rows() if rank == 1}
    for matrix, expected in ((found.answers_BB, known), (found.negative_BB, wrong)):
        assert {(ids[i], ids[j]) for i, j in matrix.nonzero().tolist()} == {
            (q, d) for q, d in expected if q in ids and d in ids
        }
    drawn = [(ids[q], ids[d]) for q, d in zip(found.query_P.tolist(), found.positive_P.tolist(), strict=True)]
    assert set(drawn) <= known
    assert all({n for q, n in wrong if q == query} <= set(ids) for query, _ in drawn)
    scores = {(q, d): s for q, d, s in tables.scores().select("query", "document", "score").iter_rows()}
    for first, second, score in zip(
        found.first_C.tolist(), found.second_C.tolist(), found.score_C.tolist(), strict=True
    ):
        assert scores[ids[first], ids[second]] == score
    assert len(found.score_C) + len(drawn) == 60


@pytest.fixture
def fewer_pairs(pairs: Path) -> Path:
    """The texts from 160 on are in no pair."""
    early = pl.col("query") < text_id(160)
    for table in (PAIRS, SCORED_PAIRS, PAIR_NEGATIVES):
        rows = pl.read_parquet(pairs / table.file).filter(early)
        table.write(pairs, rows.to_arrow())
    return pairs


def test_further_texts_of_a_batch_are_in_no_pair_and_follow_the_seed_and_the_pairs(lesson, fewer_pairs):
    data = lesson.data()["train"]
    tables = PairTables(fewer_pairs)
    rows = PairRows(tables, data, "train", 1, [tables.negatives()])
    chosen = [np.arange(30), np.arange(30, 50)]
    plain = PairFeed(data, rows).read(chosen, Reading())
    with_texts = PairFeed(data, rows, 12, seed=3).read(chosen, Reading())
    again = PairFeed(data, rows, 12, seed=3).read(chosen[::-1], Reading())[::-1]
    other_seed = PairFeed(data, rows, 12, seed=4).read(chosen, Reading())
    drawn = []
    for before, after, repeated in zip(plain, with_texts, again, strict=True):
        assert set(before.positions_B) <= set(after.positions_B)
        further = set(data.ids(np.setdiff1d(after.positions_B, before.positions_B)))
        # A mined negative may be one of the further texts.
        assert 8 <= len(further) <= 12
        assert all(text >= text_id(160) for text in further)
        assert np.array_equal(after.positions_B, repeated.positions_B)
        drawn.append(further)
    assert drawn[0] != drawn[1]
    assert not np.array_equal(with_texts[0].positions_B, other_seed[0].positions_B)


def test_further_texts_change_no_loss_about_pairs(lesson, fewer_pairs):
    data = lesson.data()["train"]
    tables = PairTables(fewer_pairs)
    rows = PairRows(tables, data, "train", 1, [tables.negatives()])
    vectors = torch.nn.functional.normalize(torch.randn(TEXTS, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    about_pairs = [loss for loss in stage_of().full_head.losses if loss.compares == "pairs"]

    def values(anchors: int) -> list[torch.Tensor]:
        (batch,) = PairFeed(data, rows, anchors).read([np.arange(60)], Reading())
        return [loss.value(vectors[batch.positions_B], batch.targets, IN_COSINES) for loss in about_pairs]

    assert len(about_pairs) == 4
    for with_texts, without in zip(values(24), values(0), strict=True):
        torch.testing.assert_close(with_texts, without)


def test_training_lowers_the_loss_of_held_out_pairs_and_keeps_the_anchor(lesson, tmp_path, pairs):
    stage = stage_of(steps=8, checkpoint_every=8, learning_rate=2e-3, hard_negatives=2)
    outcome = stage.run(context(lesson, lesson.student(), tmp_path / "a", pairs))
    dev = {(row["step"], row["term"]): row["value"] for row in outcome.log if row["split"] == "dev"}
    assert dev[8, "full/info_nce"] < dev[0, "full/info_nce"]
    assert dev[8, "full/cosine"] < dev[0, "full/cosine"]
    assert outcome.metrics["pairs_train"] == 81
    assert outcome.metrics["epochs"] == round(8 * 8 / 101, 2)


def test_a_stage_that_was_stopped_and_resumed_ends_in_the_same_bits(lesson, tmp_path, monkeypatch, fewer_pairs):
    pairs = fewer_pairs
    stage = stage_of(micro_batch_size=9, hard_negatives=1, anchor_texts=5)
    undisturbed, resumed = lesson.student(), lesson.student()
    expected = train(lesson, undisturbed, stage, tmp_path / "a", pairs)

    class Stops(checkpoint.Checkpoints):
        def save(self, *args, **kwargs):
            super().save(*args, **kwargs)
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Checkpoints", Stops)
        with pytest.raises(InterruptedError):
            train(lesson, lesson.student(), stage, tmp_path / "b", pairs)
    result = train(lesson, resumed, stage, tmp_path / "b", pairs)
    assert result.resumed_at == 2
    assert all(torch.equal(a, b) for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True))
    assert result.log == expected.log


def test_parts_of_a_batch_give_the_gradient_of_the_whole(lesson, tmp_path, pairs):
    whole, parts = lesson.student(), lesson.student()
    whole.dtype = parts.dtype = "float32"
    train(lesson, whole, stage_of(steps=1, checkpoint_every=1), tmp_path / "a", pairs)
    train(lesson, parts, stage_of(steps=1, checkpoint_every=1, micro_batch_size=5), tmp_path / "b", pairs)
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0, msg=name)


def gradients(lesson: Lesson, folder: Path, pairs: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The gradient of the first step, clipped, as AdamW remembers it."""
    student = lesson.student()
    student.dtype = "float32"
    done = train(lesson, student, stage_of(steps=1, checkpoint_every=1, hard_negatives=2, **changes), folder, pairs)
    return {name: tensor for name, tensor in done.optimizer.items() if name.endswith("exp_avg")}


def _one_of_two(rank: int, port: int, root: Path, config: DenseConfig, folder: Path, pairs: Path) -> None:
    """Runs in a process of its own."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, ACCELERATE_USE_CPU="true")
    lesson = Lesson(config, Snapshot.open(Workspace(root), "tiny", "one"), TokenTable(folder / "tokens.arrow"))
    for name, changes in SHARED.items():
        found = gradients(lesson, folder / name.replace(" ", "_"), pairs, **changes)
        if rank == 0:
            save_file(found, folder / f"{name}.safetensors")


SHARED: dict[str, dict[str, Any]] = {"whole": {}, "in parts": {"micro_batch_size": 4}}


@pytest.mark.slow
def test_two_processes_that_share_a_batch_of_pairs_have_the_gradient_of_one(lesson, workspace, tmp_path, pairs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(
        _one_of_two, (port, workspace.root, lesson.config, tmp_path, pairs), nprocs=2, join=True
    )
    expected = gradients(lesson, tmp_path / "one", pairs)
    for name in SHARED:
        found = load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-4, msg=f"{name}: {key}")


def test_a_loss_without_a_gradient_stops_the_stage_and_is_named(lesson, tmp_path, pairs):
    none = SCORED_PAIRS.schema.empty_table()
    SCORED_PAIRS.write(pairs, none)
    losses = {"cosine": 10, "info_nce": 1, "cosent": 0.2}
    sizes = {"steps": DEAD_STEPS + 5, "checkpoint_every": 100, "batch_size": 16}
    stage = stage_of(train_layers=0, full_head=losses, matryoshka_heads=None, **sizes)
    with pytest.raises(DeadLossError, match=r"s: full/cosent has a weight, and its gradient was zero in each"):
        train(lesson, lesson.student(), stage, tmp_path / "a", pairs)


def test_the_watch_holds_for_every_method_and_looks_at_the_beginning_only():
    vectors = torch.ones(2, 3, requires_grad=True) * 1
    fresh, resumed = Watch(0), Watch(DEAD_STEPS)
    for _ in range(DEAD_STEPS - 1):
        fresh.look("full/cosine", vectors.sum(), vectors)
        for watch in (fresh, resumed):
            watch.look("full/mse", vectors.sum() * 0, vectors)
            watch.look("64/mse", torch.ones(()), vectors)
            watch.require_alive("stage_2")
    resumed.require_alive("stage_2")
    with pytest.raises(DeadLossError, match=r"stage_2: 64/mse has a weight"):
        fresh.require_alive("stage_2")


def test_too_few_pairs_are_told_before_the_first_step(lesson, tmp_path, pairs):
    with pytest.raises(StageError, match=r"s: there are 101 pairs of train texts, and a batch takes 128\."):
        stage_of(batch_size=128).run(context(lesson, lesson.student(), tmp_path / "a", pairs))


def test_further_texts_that_no_source_has_are_told_before_the_first_step(lesson, tmp_path, pairs):
    with pytest.raises(StageError, match=r"s: anchor_texts is 8, and every train text is in a pair\."):
        stage_of(anchor_texts=8).run(context(lesson, lesson.student(), tmp_path / "a", pairs))


def test_a_stage_without_further_texts_has_the_identity_that_it_had_before():
    assert "anchor_texts" not in stage_of().model_dump()
    assert stage_of(anchor_texts=8).model_dump()["anchor_texts"] == 8


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        (
            {"method": "contrastive", "full_head": LOSSES},
            "method contrastive needs pairs of texts, and no source",
        ),
        ({"method": "contrastive", "full_head": {"cosine": 1}}, "method contrastive needs a loss about pairs"),
        ({"full_head": {"cosine": 1, "info_nce": 1}}, "info_nce is about pairs of texts; take `method: contrastive`"),
        ({"full_head": {"cosine": 1}, "hard_negatives": 2}, "method descent takes no hard_negatives"),
    ],
)
def test_a_recipe_whose_stage_and_data_do_not_fit_is_refused(raw, tmp_path, stage, why):
    raw["stages"][2] = {**raw["stages"][2], **stage}
    with pytest.raises(RecipeError, match=why):
        parse_recipe(raw, tmp_path / "tiny.yaml")


def test_spread_out_is_a_loss_of_every_method():
    stage = Descent.model_validate({**TINY["stages"][2], "full_head": {"cosine": 1, "spread_out": 0.1}})
    assert [loss.loss for loss in stage.full_head.losses] == ["cosine", "spread_out"]
