"""A recipe says what it will cost before it is run: by its sources, and by a few of its own texts and steps."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.runner import Runner
from stella_assets.core.step import Estimate, Size
from stella_assets.corpus import look as looks
from stella_assets.corpus.look import expected_size, largest_size, look
from stella_assets.lineage.plan import plan
from stella_assets.lineage.probe import (
    Probe,
    can_probe,
    is_worth_a_probe,
    known_probe,
    make_probe,
)
from stella_assets.recipe import Graph, Recipe, read_recipe
from stella_assets.storage.artefacts import finished
from stella_assets.storage.workspace import Workspace
from tests.conftest import write_recipe


def own_texts(folder: Path, raw: dict[str, Any], count: int, **source: Any) -> Recipe:
    """The tiny recipe on texts of one's own, without a limit."""
    rows = (json.dumps({"text": f"Text {i} says what {'its authors ' * (i % 7)}know of it."}) for i in range(count))
    (folder / "own.jsonl").write_text("\n".join(rows))
    own = {"name": "own", "kind": "jsonl", "path": "./own.jsonl", "licence": "MIT", **source}
    raw["corpus"] = {"sources": [own], "test": 0.1, "dev": 0.05}
    return read_recipe(write_recipe(folder, raw))


@pytest.mark.parametrize(
    ("source", "texts"), [({}, 3000), ({"weight": 0.5}, 1500), ({"limit": 400}, 400), ({"limit": 9999}, 3000)]
)
def test_the_size_of_the_corpus_is_known_before_it_is_made(
    source: dict[str, Any], texts: int, tmp_path: Path, raw: dict[str, Any]
):
    recipe = own_texts(tmp_path, raw, 3000, **source)
    size = expected_size(recipe.corpus, look(recipe.corpus))
    assert size is not None
    assert size.mean_bytes == pytest.approx(67, abs=1)
    train = texts - texts // 10 - texts // 20
    assert replace(size, mean_bytes=None) == Size(texts, train, texts // 20, texts // 10, pairs=0)
    assert (size_of_limits := largest_size(recipe.corpus)) is None or size_of_limits.texts == source["limit"]


def test_pairs_are_counted_before_they_are_made(tmp_path: Path, raw: dict[str, Any]):
    rows = [{"q": f"what is thing number {n} of these?", "a": f"thing number {n} is a thing"} for n in range(1000)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "asked", "kind": "jsonl", "path": "./pairs.jsonl", "licence": "MIT"}
    raw["corpus"] |= {"sources": [{**source, "columns": {"query": "q", "positive": "a"}}], "dev": 0.05, "test": 0.1}
    corpus = read_recipe(write_recipe(tmp_path, raw)).corpus
    size = expected_size(corpus, look(corpus))
    assert size is not None
    assert (size.texts, size.train) == (2000, 1700)
    assert size.pairs == pytest.approx(850, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("anchor_texts", [0, 64])
def test_a_stage_on_pairs_is_probed_though_its_batch_is_larger_than_the_sample(
    anchor_texts: int, tmp_path: Path, raw: dict[str, Any], workspace: Workspace, log: logging.Logger
):
    names = [f"{chr(97 + n % 26)}{chr(97 + n % 23)}{chr(97 + n % 19)}" for n in range(3000)]
    rows = [{"q": f"what is {a} to {b}?", "a": f"{b} has {a}"} for a, b in zip(names, names[7:], strict=False)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "asked", "kind": "jsonl", "path": "./pairs.jsonl", "licence": "MIT"}
    raw["corpus"] = {
        "clean": {"document": {"min_chars": 3}, "query": {"min_chars": 3}},
        "sources": [{**source, "columns": {"query": "q", "positive": "a"}}],
        "dev": 0.05,
        "test": 0.1,
    }
    finish = {"method": "contrastive", "train_layers": 1, "full_head": {"cosine": 1, "info_nce": 1},
              "batch_size": 256, "anchor_texts": anchor_texts, "steps": 20, "learning_rate": 1e-4}  # fmt: skip
    raw["stages"] = [*raw["stages"], finish]
    # The sample has too few terms for the lexical one.
    raw["teachers"] = [teacher for teacher in raw["teachers"] if teacher["name"] == "minilm"]
    recipe = read_recipe(write_recipe(tmp_path, raw))
    found = make_probe(Graph(recipe), Runner(workspace, log), look(recipe.corpus))
    assert found is not None
    stage = found.steps["stage_4"]
    assert (stage.work, stage.steps) == ("20 steps of 256 pairs", 20)
    # As many texts as the steps will see, though those of the probe had fewer pairs.
    assert stage.texts == pytest.approx(20 * (2 * 256 + anchor_texts), rel=0.06)
    assert stage.seconds is not None


def test_sources_that_are_too_long_to_count_are_estimated_from_their_bytes(
    tmp_path: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    recipe = own_texts(tmp_path, raw, 20_000)
    monkeypatch.setattr(looks, "LOOK_SECONDS", 0.005)
    size = expected_size(recipe.corpus, look(recipe.corpus))
    assert 15_000 < size.texts < 40_000


def test_a_small_run_is_not_worth_a_probe_and_a_model_of_the_hub_is_not_downloaded_for_one(
    tiny: Recipe, raw: dict[str, Any], tmp_path: Path
):
    graph = Graph(tiny)
    assert not is_worth_a_probe(graph, Size(700, 455, 35, 210))
    assert is_worth_a_probe(graph, Size(7000, 4550, 350, 2100))
    assert can_probe(tiny)
    raw["teachers"][0] |= {"model": "someone/theirs", "revision": "0" * 40}
    assert not can_probe(read_recipe(write_recipe(tmp_path, raw)))


def test_a_fresh_recipe_is_planned_from_its_probe(tiny: Recipe, workspace: Workspace, log: logging.Logger):
    graph, runner = Graph(tiny), Runner(workspace, log)
    known = Probe(
        Size(700, 455, 35, 210), {"stage_2": Estimate("12 steps", 5.0, 800, 9.0), "release": Estimate("", 4.0)}
    )
    planned = {each.asset: each for each in plan(graph, runner, known)}
    stage = planned["stage_2"]
    assert (stage.seconds, stage.memory_mib, stage.disk_mib, stage.source) == (5.0, 800, 9.0, "a probe")
    assert (planned["release"].seconds, planned["release"].source) == (4.0, "a rule of thumb")
    # What the probe does not tell is still known in texts and steps.
    assert (planned["stage_1"].work, planned["stage_1"].seconds) == ("40 steps of 32 texts", None)
    assert planned["teacher_vectors/minilm"].work == "700 texts to embed"


@pytest.mark.slow
def test_a_probe_tells_every_step_of_a_run_and_leaves_no_artefact(
    tiny: Recipe, workspace: Workspace, log: logging.Logger
):
    graph, runner = Graph(tiny), Runner(workspace, log)
    assert known_probe(graph, runner) is None
    found = make_probe(graph, runner, look(tiny.corpus))
    assert found is not None
    assert found.size.texts == 700
    assert known_probe(graph, Runner(workspace, log)) == found
    planned = {each.asset: each for each in plan(graph, runner, found)}
    assert all(each.seconds is not None and each.source for each in planned.values())
    assert (planned["stage_1"].steps, planned["stage_1"].texts) == (40, 1280)
    assert planned["stage_3"].memory_mib > 100
    assert finished(workspace) == []
    other = tiny.model_copy(update={"seed": 5})
    assert known_probe(Graph(other), Runner(workspace, log)) is None


@pytest.mark.slow
def test_the_recipe_of_a_new_project_is_estimated_before_its_first_run(tmp_path: Path):
    stella = str(Path(sys.executable).with_name("stella"))
    environment = {**os.environ, "STELLA_HOME": str(tmp_path / "home")}
    subprocess.run([stella, "init", "x"], check=True, cwd=tmp_path, env=environment, capture_output=True)
    command = [stella, "plan", "x", "--estimate", "--json"]
    done = subprocess.run(command, check=True, cwd=tmp_path / "x", env=environment, capture_output=True, text=True)
    assert "nothing could be measured" not in done.stderr
    steps = {step["asset"]: step for step in json.loads(done.stdout)}
    assert steps["stage_2"]["source"] == "a probe"
    assert all(step["seconds"] is not None for step in steps.values())
