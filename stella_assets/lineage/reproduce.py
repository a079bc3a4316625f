"""Is a release what it says it is, and does it come out the same when it is made again?"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from storage.workspace import Workspace

from stella_assets.core.manifest import changed_values, environment, file_digest, plain
from stella_assets.core.step import Artefact, Runner, Step, all_steps
from stella_assets.core.trace import Node
from stella_assets.corpus.read import CorpusTexts
from stella_assets.evaluation.held_out import probe_texts
from stella_assets.evaluation.score import SCORES_FILE
from stella_assets.lineage.difference import Difference, setups
from stella_assets.recipe import Recipe
from stella_assets.release.publish import release_step
from stella_assets.teachers.encode import read_reference
from stella_assets.training.stages import START, model_folder
from stella_assets.training.start import StartError, find_start, set_start
from storage.database import table_names
from storage.integrity import verify_table
from storage.snapshot import TABLE
from storage.vectors import PREFIX, VectorsByRole

LEAST_VECTOR_COSINE = 0.999
"""Of a teacher's vector with the one that was made before; bfloat16 against float32 is above it."""
LEAST_STUDENT_COSINE = 0.99
"""In the mean over texts, of a student's vector with the one of the student that was trained before."""
LARGEST_SCORE_DIFFERENCE = 1.0
"""Points of 100."""
BLOCK = 4096

Verdict = Literal["identical", "within tolerance", "follows", "differs"]


@dataclass(frozen=True)
class Comparison:
    """An artefact that was made again.

    Attributes:
        asset: Which.
        before: Its digest in the release's lineage.
        now: Its digest when it was made again.
        verdict: `identical` by bytes, `within tolerance`, or `differs`; `follows` where nothing can be measured, and
            something that it was made of is not identical.
        measured: The largest deviation, in words.
    """

    asset: str
    before: str
    now: str
    verdict: Verdict
    measured: str = ""


def steps_of(recipe: Recipe) -> dict[str, Step]:
    """The steps that a release of the recipe is made of, inputs first."""
    return {step.name: step for step in all_steps(release_step(recipe), after=False)}


def mismatches(release: Node, recipe: Recipe, workspace: Workspace) -> list[Difference]:
    """Where recipe, code, sources, libraries and machine of now are not those of the release."""
    steps, found = steps_of(recipe), list[Difference]()
    for name in dict.fromkeys([*release.all, *steps]):
        node, step = release.all.get(name), steps.get(name)
        if node is None or step is None or node.manifest is None:
            there = node.digest[:12] if node else None
            found.append(Difference("asset", name, "", there, "in the recipe" if step else None))
            continue
        identity, settings = node.manifest.identity, plain(step.settings)
        if identity.code_version != step.code_version:
            found.append(Difference("code", name, "code version", identity.code_version, step.code_version))
        found += [
            Difference("setting", name, path, *two) for path, two in changed_values(identity.settings, settings).items()
        ]
        sources = dict(step.sources(workspace)) if step.sources else {}
        sources.pop(START, None)  # a reproduction begins with what the release began with
        sources |= {START: node.sources[START]} if START in node.sources else {}
        found += [Difference("source", name, path, *two) for path, two in changed_values(node.sources, sources).items()]
    then, now = setups(release), environment()
    return found + [
        Difference("environment", "", name, ", ".join(values), now[name])
        for name, values in then.items()
        if name != "threads" and values != [now.get(name)]  # those are known when libraries are loaded
    ]


def damages(release: Node, workspace: Workspace) -> Iterator[Difference]:
    """What of a release's lineage is no longer as it was made: files by their digests, vectors by the store's."""
    damaged = {name: verify_table(workspace, name).damages for name in table_names(workspace)}
    for name, node in release.all.items():
        if node.manifest is None or node.folder is None:
            yield Difference("content", name, "its files are gone", node.digest[:12], None)
            continue
        for file, digest in node.manifest.outputs.items():
            path = node.folder / file
            now = file_digest(path) if path.is_file() else None
            if now != digest:
                yield Difference("content", name, str(path), digest[:12], now and now[:12])
        for table in _tables(node):
            for damage in damaged.get(table, ()):
                if not damage.tags or table.startswith(PREFIX) or node.manifest.identity.key in damage.tags:
                    yield Difference("vectors", name, f"{table}, {damage.place}", None, damage.what)


def _tables(node: Node) -> list[str]:
    """Tables of the store that an artefact refers to."""
    if node.name.startswith("teacher_vectors/"):
        return [PREFIX + name for name in sorted(set(read_reference(_artefact(node)).fingerprints.values()))]
    if node.name == "concatenated_vectors" and node.manifest:
        return [node.manifest.identity.settings["table"] + TABLE]
    return []


def _artefact(node: Node) -> Artefact:
    assert node.folder is not None
    assert node.manifest is not None
    return Artefact(node.name, node.folder, node.manifest)


class Reproduction:
    """A release that is made again in another workspace, each artefact compared as soon as it is there.

    Args:
        release: The release and all that it rests on.
        recipe: Of it.
        workspace: Where it lies.
        fresh: Where it is made again; what an interrupted reproduction made there is used, as in any run.
        log: For people.
    """

    def __init__(
        self, release: Node, recipe: Recipe, workspace: Workspace, fresh: Workspace, log: logging.Logger
    ) -> None:
        self._release = release
        self._recipe = recipe
        self._homes = workspace, fresh
        self._runner = Runner(fresh, log)
        self._made: dict[str, Artefact] = {}

    def run(self) -> Iterator[Comparison]:
        """Make and compare, inputs first.

        Raises:
            ValueError: What the release continued from is gone, or an input is.
        """
        self._begin_with_the_same()
        identical: set[str] = set()
        for name, step in steps_of(self._recipe).items():
            now = self._made[name] = self._runner.make(step)
            before = _artefact(self._release.all[name])
            if dict(before.manifest.outputs) == dict(now.manifest.outputs):
                identical.add(name)
                yield Comparison(name, before.digest, now.digest, "identical")
                continue
            verdict, measured = self._measure(before, now)
            if verdict is None:
                verdict = "differs" if all(need.name in identical for need in step.needs) else "follows"
            yield Comparison(name, before.digest, now.digest, verdict, measured)

    def _begin_with_the_same(self) -> None:
        """Take the weights that the release continued from as given: they are another release's, and not made again."""
        digest = self._release.all["stage_1"].sources.get(START)
        if digest is None:
            return
        workspace, fresh = self._homes
        given = find_start(workspace, digest)
        if given is None:
            raise StartError(
                f"{self._recipe.name}: the release continued from weights with the digest {digest[:12]}, and they are "
                "gone. Make a later release again; with a higher `redistil.keep` more of them stay."
            )
        place = fresh.artefacts / given.asset / given.key
        if not place.exists():
            shutil.copytree(given.folder(workspace), place.with_suffix(".draft"), dirs_exist_ok=True)
            place.with_suffix(".draft").rename(place)
        set_start(fresh, self._recipe.name, given)

    def _measure(self, before: Artefact, now: Artefact) -> tuple[Verdict | None, str]:
        """How far two artefacts of one asset lie apart, where a tolerance is stated for their kind."""
        name = before.name
        files = changed_values(dict(before.manifest.outputs), dict(now.manifest.outputs))
        if name.startswith("teacher_vectors/") and self._release.all["corpus"].digest == self._made["corpus"].digest:
            least = self._least_vector_cosine(before, now)
            return _verdict(least >= LEAST_VECTOR_COSINE), f"least cosine {least:.6f}, tolerance {LEAST_VECTOR_COSINE}"
        if name.startswith("stage_"):
            mean = self._student_cosine(before, now)
            return _verdict(mean >= LEAST_STUDENT_COSINE), f"mean cosine {mean:.4f}, tolerance {LEAST_STUDENT_COSINE}"
        if name.startswith("mteb/"):
            points = _score_difference(before, now)
            measured = f"a score is {points:.2f} points off, tolerance {LARGEST_SCORE_DIFFERENCE:g}"
            return _verdict(points <= LARGEST_SCORE_DIFFERENCE), measured
        return None, f"other bytes: {', '.join(files)}"

    def _least_vector_cosine(self, before: Artefact, now: Artefact) -> float:
        """Least cosine of two sets of vectors of the same texts, a block in memory at a time."""
        texts, references = CorpusTexts(self._made["corpus"]), [read_reference(artefact) for artefact in (before, now)]
        first, second = (
            VectorsByRole(workspace, reference.fingerprints, reference.dim)
            for workspace, reference in zip(self._homes, references, strict=True)
        )
        if first.dim != second.dim:
            return -1.0
        least = 1.0
        for start in range(0, len(texts), BLOCK):
            rows = texts.take(np.arange(start, min(start + BLOCK, len(texts))), ["id", "role"]).to_pydict()
            a_ND, b_ND = (each.fetch(rows["id"], rows["role"]).astype(np.float32) for each in (first, second))
            norms = np.linalg.norm(a_ND, axis=1) * np.linalg.norm(b_ND, axis=1)
            least = min(least, float((np.einsum("nd,nd->n", a_ND, b_ND) / norms).min()))
        return least

    def _student_cosine(self, before: Artefact, now: Artefact) -> float:
        """Mean cosine of what two students make of the same held-out texts."""
        import torch

        from stella_assets.students.dense import Student

        texts, vectors = probe_texts(self._made["corpus"]), []
        for artefact in (before, now):
            student = Student.load(model_folder(artefact), self._recipe.student)
            with torch.inference_mode():
                pooled_BH = torch.from_numpy(student.encode_pooled(texts)).to(student.device)
                vectors.append(student.project(pooled_BH, student.dims[0]).cpu().numpy())
        return float(np.einsum("nd,nd->n", *vectors).mean())


def _verdict(kept: bool) -> Verdict:
    return "within tolerance" if kept else "differs"


def _score_difference(before: Artefact, now: Artefact) -> float:
    """The largest difference of a score, in points of 100; 100 where only one has it."""
    keys = ["model", "dimension", "task"]
    first, second = (
        pl.read_parquet(artefact.folder / SCORES_FILE).select(*keys, "score") for artefact in (before, now)
    )
    joined = first.join(second, on=keys, how="full", suffix="_now", coalesce=True)
    points = (100 * (joined["score"] - joined["score_now"]).abs()).fill_null(100)
    return float(np.max(points.to_numpy()))


def reproduction_folder(workspace: Workspace, release: Node) -> Path:
    """Where a release is made again, the same one each time, so that a reproduction that was killed goes on."""
    return workspace.root / "reproductions" / release.digest[:12]
