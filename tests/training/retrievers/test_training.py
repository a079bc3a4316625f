"""Training a retriever: the gradient in parts, resuming to the bit, and losses that cannot go on."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute, processes
from stella_assets.core.step import Launch
from stella_assets.corpus.tables import PAIR_NEGATIVES, PAIRS
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.tables import PAIR_SCORES
from stella_assets.training.dead_losses import DEAD_STEPS, DeadLossError
from stella_assets.training.divergence import DivergedError
from stella_assets.training.job import run_as_job
from stella_assets.training.retrievers import gradients, loop
from stella_assets.training.retrievers.base import Trainee
from stella_assets.training.retrievers.gradients import ListGradients
from stella_assets.training.retrievers.inputs import RetrieverInputs
from stella_assets.training.retrievers.together import Together
from tests.kill import kill_before_rename
from tests.training.retrievers.conftest import LOG, late, make_lists, ranker, start, train

ROOT = Path(__file__).parents[3]
KINDS = {"multi_vector": late, "reranker": ranker}


def gradient(retriever: Trainee) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in retriever.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("losses", [{"kl": 1, "margin_mse": 0.1}, {"kl": 1, "contrastive": 0.5}])
@pytest.mark.parametrize("micro", [2, 9])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(lists, model, monkeypatch, losses, micro):
    whole, parts = start(late(), model), start(late(), model)
    batch = lists.data()["train"].batch(np.arange(5))
    weighted = late(losses=losses).losses.weighted()
    expected = ListGradients(whole, weighted).backward(batch)
    most: list[int] = []
    outputs = parts.outputs
    monkeypatch.setattr(parts, "outputs", lambda rows: most.append(len(rows)) or outputs(rows))
    found = ListGradients(parts, weighted, micro).backward(batch)
    assert max(most) <= micro
    assert found == pytest.approx(expected, rel=1e-4)
    assert gradient(whole).keys() == gradient(parts).keys()
    for name, value in gradient(whole).items():
        torch.testing.assert_close(gradient(parts)[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_training_lowers_the_loss_of_held_out_lists(lists, model, tmp_path):
    retriever = start(late(), model)
    trained = train(late(steps=6, checkpoint_every=3), retriever, lists.data(), tmp_path / "a")
    dev = {(row["step"], row["term"]): row["value"] for row in trained.log if row["split"] == "dev"}
    assert dev[trained.kept_step, "total"] < dev[0, "total"]
    assert dev[trained.kept_step, "total"] == min(value for (_, term), value in dev.items() if term == "total")
    assert (trained.steps, trained.lists) == (6, 36)
    assert {term for _, term in dev} == {"kl", "margin_mse", "contrastive", "total", "answer_first"}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(late(micro_batch_size=8, steps=5, checkpoint_every=2), id="multi_vector"),
        pytest.param(ranker(micro_batch_size=8, batch_size=3, steps=3), id="reranker"),
    ],
)
def test_a_training_that_was_stopped_and_resumed_ends_in_the_same_bits(settings, lists, model, tmp_path, monkeypatch):
    undisturbed, resumed = start(settings, model), start(settings, model)
    expected = train(settings, undisturbed, lists.data(), tmp_path / "a")

    class Stops(loop.Checkpoints):
        def save(self, *args, **kwargs):
            super().save(*args, **kwargs)
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Checkpoints", Stops)
        with pytest.raises(InterruptedError):
            train(settings, start(settings, model), lists.data(), tmp_path / "b")
    result = train(settings, resumed, lists.data(), tmp_path / "b")
    assert (result.resumed_at, expected.resumed_at) == (2, 0)
    assert result.log == expected.log
    for (name, a), (_, b) in zip(undisturbed.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_loss_that_teaches_nothing_stops_the_training_and_is_named(lists, model, tmp_path, monkeypatch):
    monkeypatch.setattr(gradients.ListGradients, "values", lambda self, scores, _batch: {
        "kl": scores[0].sum(dim=1), "contrastive": scores[1].sum(dim=1) * 0
    })  # fmt: skip
    settings = late(losses={"kl": 1, "contrastive": 1}, steps=DEAD_STEPS + 5, learning_rate=1e-9, checkpoint_every=99)
    with pytest.raises(DeadLossError, match=r"retriever/late: contrastive has a weight, and its gradient was zero"):
        train(settings, start(settings, model), lists.data(), tmp_path / "a")


def test_a_loss_that_explodes_stops_the_training_with_the_queries_and_the_last_checkpoint(lists, model, tmp_path):
    settings = late(losses={"margin_mse": {"weight": 1, "scale": 100}})
    exploding = settings.losses.margin_mse.model_copy(update={"weight": 1e38})  # no recipe may say so
    losses = settings.losses.model_copy(update={"margin_mse": exploding})
    settings = settings.model_copy(update={"losses": losses})
    with pytest.raises(
        DivergedError, match=r"retriever/late: the loss is inf with a gradient of .* at step 1; it began"
    ):
        train(settings, start(settings, model), lists.data(), tmp_path / "a")
    report = json.loads((tmp_path / "a" / "diverged.json").read_text())
    assert len(report["ids"]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_is_killed_at_any_moment_ends_in_the_bits_of_an_undisturbed_one(kind, model, tmp_path):
    """`kill -9`, five times, before the 1st to 5th rename of a process; a checkpoint needs one or two."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    assert start_driver(kind, model, folders[0]).wait() == 0
    for rename in random.Random(7).sample(range(1, 6), 5):
        assert start_driver(kind, model, folders[1], rename).wait() == -signal.SIGKILL
    assert start_driver(kind, model, folders[1]).wait() == 0
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (folders[0] / "log.json").read_text() == (folders[1] / "log.json").read_text()


# Of this environment, also where its programs are not on PATH.
TWO_PROCESSES = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def launch(*command: str) -> Launch:
    """A launcher, as `STELLA_LAUNCH` names one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return lambda arguments: subprocess.run([*command, *arguments], env=environment, cwd=ROOT, check=True) and None


@pytest.mark.slow
def test_a_launched_training_gives_that_of_the_run_and_two_processes_nearly_so(lists, model, tmp_path):
    for table, rows in ((PAIRS, lists.pairs), (PAIR_NEGATIVES, lists.negatives), (PAIR_SCORES, lists.scores)):
        table.write(tmp_path, [{name: row.get(name) for name in table.schema.names} for row in rows.to_dicts()])

    def inputs(name: str) -> RetrieverInputs:
        folders = [tmp_path / name / part for part in ("folder", "scratch")]
        for folder in folders:
            folder.mkdir(parents=True)
        settings, source = late(learning_rate=1e-4), ModelSource(model=str(model))
        home = Workspace(tmp_path / "home")
        return RetrieverInputs(
            "retriever/late", settings, source, None, 3, tmp_path, tmp_path, None, tmp_path, *folders, home, Compute()
        )

    inside = inputs("inside")
    expected = inside.run(LOG)
    one = run_as_job(inputs("one"), launch(sys.executable))
    two = run_as_job(inputs("two"), launch(*TWO_PROCESSES))
    assert {**one.metrics, "lists_per_second": 0} == {**expected.metrics, "lists_per_second": 0}
    assert two.metrics["dev_loss_after"] == pytest.approx(expected.metrics["dev_loss_after"], rel=1e-2)
    a, b = (load_file(tmp_path / name / "folder" / "model" / "model.safetensors") for name in ("inside", "one"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_gradient_of_one(kind, lists, model, tmp_path):
    """In float32, whatever this processor computes in."""
    settings = KINDS[kind]()
    retriever = start(settings, model)
    expected = ListGradients(retriever, settings.losses.weighted()).backward(lists.data()["train"].batch(np.arange(5)))
    two_processes = launch(*TWO_PROCESSES)
    two_processes(["-m", __name__, "gradient", kind, str(model), str(tmp_path)])
    found = load_file(tmp_path / "gradient.safetensors")
    assert json.loads((tmp_path / "values.json").read_text()) == pytest.approx(expected, rel=1e-5)
    assert found.keys() == gradient(retriever).keys()
    for name, value in gradient(retriever).items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-3, msg=name)


def start_driver(kind: str, model: Path, folder: Path, killed_before: int | None = None) -> subprocess.Popen[bytes]:
    """Train in a process of its own, which kills itself before a rename."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [kind, str(model), str(folder), *([str(killed_before)] if killed_before else [])]
    return subprocess.Popen([sys.executable, "-m", __name__, "train", *arguments], env=environment, cwd=ROOT)


def train_to_be_killed(kind: str, model: Path, folder: Path, killed_before: str | None = None) -> None:
    """Many steps, and a checkpoint after every third."""
    settings = KINDS[kind](steps=40, checkpoint_every=3, micro_batch_size=10)
    retriever, data = start(settings, model), make_lists(folder).data()
    if killed_before:
        kill_before_rename(int(killed_before))
    trained = train(settings, retriever, data, folder / "scratch")
    retriever.save(folder / "model")
    (folder / "log.json").write_text(json.dumps(trained.log))


def write_gradient(kind: str, model: Path, folder: Path) -> None:
    """The gradient of a batch that several processes share."""
    state, settings = processes(Compute()), KINDS[kind]()
    retriever = start(settings, model)
    torch.manual_seed(state.process_index)  # whatever is random must not matter
    own = folder / str(state.process_index)
    own.mkdir()
    batch = make_lists(own).data()["train"].batch(np.arange(5))
    values = ListGradients(retriever, settings.losses.weighted(), None, Together(state)).backward(batch)
    if state.is_main_process:
        save_file(gradient(retriever), folder / "gradient.safetensors")
        (folder / "values.json").write_text(json.dumps(values))


if __name__ == "__main__":
    what, kind, source, target, *rest = sys.argv[1:]
    {"train": train_to_be_killed, "gradient": write_gradient}[what](kind, Path(source), Path(target), *rest)
