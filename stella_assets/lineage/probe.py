"""A probe: a few texts and a few steps of the very recipe, in a folder of its own, and what they say of the whole run.

It makes the recipe's own steps, so that kinds of other packages are measured like ours. What it found is kept in the
workspace, by recipe, data, models and device, so that a quick command can tell it again.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Manifest
from stella_assets.core.runner import Runner
from stella_assets.core.step import Estimate, Size, Step, upstream
from stella_assets.corpus.look import SAMPLE, Looked, expected_size
from stella_assets.corpus.sources import SOURCES, RawText
from stella_assets.evaluation.forecast import texts_to_score
from stella_assets.evaluation.settings import HELD_OUT
from stella_assets.recipe import Graph, Recipe
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import write_atomically
from stella_assets.storage.workspace import Workspace

LARGEST_BATCH = 128
"""Texts of a batch of the probe; a larger one takes as many times as long."""
STEPS = 3
WORTH_A_PROBE = 5_000
"""Texts to embed and to train on, below which a run is not much longer than a probe."""
PER_SCORE = 0.5
"""Seconds of a task at one dimension, in addition to the texts that it encodes."""
SPEED_TEXTS = 64
PASSES, LONGER = 3, 1.5
"""A training step costs as much as three forward passes; texts of lists are longer than others."""


@dataclass(frozen=True)
class Probe:
    """What a probe has found.

    Attributes:
        size: Of the corpus to be made.
        steps: What each step would cost, by the name under which artefacts of its kind are stored.
    """

    size: Size
    steps: dict[str, Estimate]


def by_rule(graph: Graph) -> dict[Step[Any], float]:
    """Seconds of the steps that do not depend on the corpus, for small models on two cores."""
    return {
        graph.rehearsal: 15.0,
        graph.tasks: 5.0,
        graph.active_scores: 1.0,
        graph.report: 3.0,
        graph.gate: 1.0,
        graph.release: 15.0,
    }


def known_probe(graph: Graph, runner: Runner) -> Probe | None:
    """The probe that was made of this recipe on this device, with the data and the models as they are."""
    path = _path(graph, runner)
    if not path.is_file():
        return None
    body = json.loads(path.read_text(encoding="utf-8"))
    return Probe(Size(**body["size"]), {name: Estimate(**values) for name, values in body["steps"].items()})


def is_worth_a_probe(graph: Graph, size: Size) -> bool:
    """Whether a run is so long that a probe of some ten seconds pays.

    Args:
        graph: Of the recipe.
        size: Of its corpus.
    """
    trained = sum(stage.estimate(None, size).texts or 0 for stage in graph.recipe.stages)
    return size.texts * len(graph.teachers) + trained >= WORTH_A_PROBE


def can_probe(recipe: Recipe) -> bool:
    """Whether all models are on this machine, without environments of their own, which take minutes to make.

    A teacher that costs money is not probed: nothing is sent that a person did not ask for.
    """
    on_hub = any(model.on_hub for model in recipe.published_models().values())
    elsewhere = any(teacher.paid or teacher.own_environment() for teacher in recipe.teachers)
    return not (on_hub or elsewhere)


def make_probe(graph: Graph, runner: Runner, looked: Sequence[Looked]) -> Probe | None:
    """Make a few texts of the recipe, up to its last stage, and estimate each step from that.

    Args:
        graph: Of a recipe that was checked.
        runner: Of the workspace that keeps what is found; it also has the device.
        looked: What `look` has found.

    Returns:
        What was found; None where the sources do not tell how many texts they have, or have too few.
    """
    recipe = graph.recipe
    size = expected_size(recipe.corpus, looked)
    sample = _draw(looked, _sample_size(recipe))
    if size is None or len(sample) < SAMPLE // 4:
        return None
    log = logging.Logger("probe")  # without a handler: the steps' own lines would look like a run
    with tempfile.TemporaryDirectory() as folder:
        small = Graph(_small(recipe, sample, Path(folder), size))
        inside = Runner(Workspace(Path(folder) / "home"), log, runner.compute)
        _share_examinations(runner.workspace, inside.workspace)
        try:
            wanted = upstream(small.stages[-1], small.vector_stats, order=False)
            made = {step.stored_as: inside.make(step).manifest for step in wanted}
        except UserError as refused:  # e.g. a teacher that needs more texts than a probe has
            runner.log.warning(f"{recipe.name}: nothing could be measured: {refused.message}")
            return None
        _share_examinations(inside.workspace, runner.workspace)
        kept = made["corpus"].metrics["texts"] / len(sample)
        size = expected_size(recipe.corpus, looked, kept)
        assert size is not None
        speeds = _speeds(small, inside, [row.text for row in sample[:SPEED_TEXTS]])
    found = Probe(size, dict(_estimates(graph, runner, size, made, speeds)))
    body = {"size": asdict(size), "steps": {name: asdict(estimate) for name, estimate in found.steps.items()}}
    path = _path(graph, runner)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(body, indent=1))
    return found


def _path(graph: Graph, runner: Runner) -> Path:
    first = [step for step in graph.steps if step.group in {"corpus", "teachers", "training"}]
    outside = {step.name: dict(runner.external_versions(step)) for step in first}
    key = digest([graph.recipe.digest, runner.compute.describe(), outside])
    return runner.workspace.probes / f"{key}.json"


def _sample_size(recipe: Recipe) -> int:
    """Enough for the largest batch, and for teachers that are fitted: those need more texts than dimensions."""
    batches = [min(getattr(stage, "batch_size", None) or 0, LARGEST_BATCH) for stage in recipe.stages]
    fitted = [teacher.check() or 0 for teacher in recipe.teachers if teacher.fitted]
    return max(SAMPLE, round(1.5 * max(batches)), round(1.5 * max(fitted, default=0))) + _further(recipe)


def _further(recipe: Recipe) -> int:
    """Texts of no pair that a batch has, at most as many as a batch of the probe has pairs."""
    return min(LARGEST_BATCH, max(getattr(stage, "anchor_texts", 0) for stage in recipe.stages))


def _draw(looked: Sequence[Looked], count: int) -> list[RawText]:
    total = max(1, sum(each.texts for each in looked))
    return [row for each in looked for row in each.sample[: max(1, round(count * each.texts / total))]]


def _small(recipe: Recipe, sample: list[RawText], folder: Path, size: Size) -> Recipe:
    """The recipe with the sample as its corpus, and stages of a few steps."""
    paired: list[RawText] = []
    if any(stage.data == "pairs" for stage in recipe.stages):
        paired = sample[min(_further(recipe), len(sample) // 3) :]
        sample = sample[: -len(paired)]
    # A third of the texts: some pairs are for dev, and some are dropped.
    largest = {"texts": LARGEST_BATCH, "pairs": min(LARGEST_BATCH, len(paired) // 3)}
    stages = tuple(stage.shortened(STEPS, largest[stage.data], size.train) for stage in recipe.stages)
    # Two texts at a time: how long a stage takes does not depend on what answers what.
    pairs = [{"text": a.text, "other": b.text} for a, b in zip(paired[::2], paired[1::2], strict=False)]
    texts = [{"text": row.text, "role": row.role} for row in sample]
    parts = {"pairs": ({"query": "text", "positive": "other"}, pairs), "texts": ({"role": "role"}, texts)}
    sources = []
    for name, (columns, rows) in parts.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {"kind": "jsonl", "name": name, "licence": "", "path": str(path), "columns": columns}
        sources += [SOURCES["jsonl"].model_validate(settings)] if rows else []
    corpus = recipe.corpus.model_copy(
        update={"sources": tuple(sources), "decontaminate": None, "semantic": None, "dev": 0.1, "test": 0.0}
    )
    # What is not measured is left out: retrievers need pairs, which the sample may have none of.
    rest: dict[str, object] = {"retrievers": (), "pair_scores": ()}
    return recipe.model_copy(update={"corpus": corpus, "stages": stages, **rest})


def _share_examinations(known: Workspace, other: Workspace) -> None:
    """What a second process found of a teacher holds in both workspaces."""
    other.locks.mkdir(parents=True, exist_ok=True)
    for path in known.locks.glob("known_vectors.*.json"):
        if not (other.locks / path.name).exists():
            shutil.copy(path, other.locks)


def _speeds(small: Graph, inside: Runner, texts: list[str]) -> dict[str, float]:
    """Texts per second of the student and of its base model."""
    from stella_assets.evaluation.base_model import BaseModelEmbedder
    from stella_assets.teachers.encode import measure_speed

    student = inside.read(small.stages[-1]).load(inside.compute)
    base = BaseModelEmbedder(small.recipe.student, inside.workspace, inside.compute)
    return {
        "student": measure_speed(student.encode_pooled, texts),
        "base_model": base.texts_per_second(texts),
    }


def _estimates(
    graph: Graph, runner: Runner, size: Size, made: dict[str, Manifest], speeds: dict[str, float]
) -> Iterator[tuple[str, Estimate]]:
    rules = by_rule(graph)
    for step in graph.steps:
        if step.stored_as in made:
            yield step.stored_as, step.estimated(runner, made[step.stored_as], size)
        elif step in rules:
            yield step.stored_as, Estimate(seconds=rules[step])
    encoded = texts_to_score(graph.recipe.evaluation, size.test)
    trains = {
        stage.stored_as: config.train_layers for stage, config in zip(graph.stages, graph.recipe.stages, strict=True)
    }
    peak = max(manifest.run_info["peak_memory_mib"] for manifest in made.values())
    for model, step in graph.scores.items():
        # Vectors of the corpus are there, and a frozen encoder's states are those of the stage before.
        fresh = encoded if model == "base_model" or trains.get(model) != 0 or model == graph.stages[0].stored_as else 0
        speed = speeds["base_model" if model == "base_model" else "student"]
        if model == "concatenation":
            speed = 1 / sum(1 / made[each.stored_as].metrics["texts_per_second"] for each in graph.teachers.values())
        elif model.startswith("teacher/"):
            fresh = 0  # the concatenation encodes them
        seconds = PER_SCORE * _scores(graph.recipe) + (fresh + 2 * SPEED_TEXTS) / speed
        yield step.stored_as, Estimate(f"{fresh:,} texts to encode" if fresh else "", seconds, peak, texts=fresh)
    for retriever in graph.recipe.retrievers:
        estimate = retriever.estimate(None, size)
        if estimate.steps:
            texts = estimate.steps * retriever.batch_size * retriever.texts_per_list
            # Documents that answer are longer than the mean text, which queries are among.
            seconds = PASSES * LONGER * texts / speeds["student"]
            yield graph.retrievers[retriever.name].stored_as, replace(estimate, seconds=seconds, memory_mib=peak)
    if graph.variants:
        yield graph.variants.stored_as, Estimate(seconds=10 * PER_SCORE * _scores(graph.recipe), memory_mib=peak)


def _scores(recipe: Recipe) -> int:
    held_out = 3 if HELD_OUT in recipe.evaluation.tasks else 0
    return held_out + len(recipe.evaluation.tasks) - bool(held_out) + len(recipe.evaluation.custom_tasks)
