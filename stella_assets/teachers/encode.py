"""Steps `teacher_vectors/<teacher>`: encode the texts that a teacher has not seen, and refer to the vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.core.environments.sandbox import can_close_network
from stella_assets.core.errors import UserError
from stella_assets.core.manifest import Check, plain
from stella_assets.core.markup import markdown_text
from stella_assets.core.present import Rows, Shown
from stella_assets.core.runner import Runner
from stella_assets.core.step import Artefact, BuildContext, CheckSpec, Presentation, Result, Step
from stella_assets.corpus.dropped import as_dropped, write_dropped
from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.integrity import mend_table
from stella_assets.storage.polars import pl
from stella_assets.teachers.deviation import compare_vectors
from stella_assets.teachers.estimate import estimate_encoding
from stella_assets.teachers.kinds.base import TeacherConfig, TeacherModel
from stella_assets.teachers.known_vectors import require_examined
from stella_assets.teachers.refusal import RULE
from stella_assets.teachers.roles import read_keys, texts_by_role
from stella_assets.teachers.tables import TEACHERS, VECTORS, teacher_asset
from stella_assets.teachers.teacher_vectors import (
    REFERENCE,
    Reference,
    TeacherVectors,
    fingerprints,
    has_vectors,
)
from stella_assets.teachers.worker import EncodeWorker

CODE_VERSION = "2"
POOL = "encoding"
TEACHERS_FILE = "teachers.parquet"
PROBE_TEXTS = 128
"""Texts that the speed of a model is measured on."""
# The first batch compiles kernels and allocates memory.
WARM_UP_TEXTS = 16
# The codec admits 1e-3; rounding to float16 adds at most 2^-11, about 5e-4.
NORM_TOLERANCE = 2e-3
"""Largest deviation of a norm from 1 that rounding to float16 explains."""
UNIT_NORM = CheckSpec("vectors_are_unit_norm", "Every vector has norm 1, except for rounding to float16.")

TAKEN = CheckSpec("every_text_was_taken", "The service took every text; what it refused is left out of the snapshot.")


def teacher_step(recipe: str, *, teacher: TeacherConfig, corpus: Step[CorpusTexts]) -> Step[TeacherVectors]:
    """The step that makes a teacher's vectors of the corpus.

    Args:
        recipe: Name of the recipe.
        teacher: The teacher's settings.
        corpus: The step that makes the corpus.

    Returns:
        A step whose artefact refers to the vector store; reading it opens no model.
    """
    step: Step[TeacherVectors] = Step(
        recipe=recipe,
        name=teacher_asset(teacher.name),
        code_version=CODE_VERSION,
        settings=teacher.identity_settings(),
        build=lambda context: _embed_corpus(recipe, teacher, corpus, context),
        presentation=Presentation(
            group="teachers",
            description=f"Vectors of {teacher.link()} ({teacher.kind}, {markdown_text(teacher.licence)}); "
            "a text is encoded once.",
            kinds=frozenset({"lancedb"}) | teacher.icons,
            checks=(UNIT_NORM, *((TAKEN,) if teacher.paid else ())),
            show=_show,
        ),
        read=lambda artefact, workspace: TeacherVectors.open(teacher, artefact, workspace),
        dependencies=(corpus,),
        # This hook gets no device: the machine's best one decides the number format `auto`.
        external_versions=lambda _workspace: teacher.external_versions(Compute()),
        is_available=has_vectors,
        pool=POOL,
        # The lambda reads `step` when it is called, after the assignment.
        estimate=lambda runner, last, size: estimate_encoding(step, teacher, corpus, runner, last, size),
        tells=lambda last: plain(teacher.identity_settings()) == last.identity.settings,
        compare=lambda *artefacts: compare_vectors(corpus, *artefacts),
    )
    return step


def open_teacher(teacher: TeacherConfig, step: Step[TeacherVectors], runner: Runner) -> TeacherModel:
    """A teacher's model, to encode texts with that no step knows.

    Args:
        teacher: The teacher's settings.
        step: Makes its vectors; a fitted teacher is in its artefact.
        runner: Finds the artefact, and has the device.

    Returns:
        The model; most kinds load it when it is first used.

    Raises:
        UserError: It is fitted to the corpus and was not yet.
    """
    artefact = runner.find(step) if teacher.fitted else None
    if teacher.fitted and artefact is None:
        raise UserError(
            f"recipe {step.recipe!r}: teacher {teacher.name!r} is fitted to the corpus and was not yet.",
            f"Run `stella run {step.recipe} --select {step.name}` first.",
        )
    # A teacher with fixed weights has nothing in its folder, so any path will do.
    return teacher.open(artefact.folder if artefact else Path(), runner.compute)


def find_teacher(recipe: str, teachers: Mapping[str, TeacherConfig], name: str) -> TeacherConfig:
    """A recipe's teacher by name.

    Raises:
        UserError: The recipe has no such teacher.
    """
    if name not in teachers:
        raise UserError(
            f"recipe {recipe!r}: has no teacher {name!r}; it has {', '.join(teachers)}.", "Name one of them."
        )
    return teachers[name]


def _embed_corpus(recipe: str, teacher: TeacherConfig, corpus: Step[CorpusTexts], context: BuildContext) -> Result:
    texts, compute = context.read(corpus), context.compute.on_behalf_of(recipe)
    total = len(texts)
    if teacher.fitted:
        # On training texts only: a teacher that saw held-out texts would make held-out losses too good.
        teacher.fit(_training_texts(texts), context.folder)
    _prepare_environment(teacher, context)
    # Before the model is loaded here: one GPU need not hold it twice.
    require_examined(teacher, context.folder, compute, context.workspace, context.log.info)
    worker = EncodeWorker(teacher, context.folder)
    model = worker.model(compute)
    # 2 bytes per float16; an upper bound, as texts that have a vector already are counted, too.
    context.workspace.require_space(
        total * model.dim * 2,
        f"teacher {teacher.name!r} with {total:,} texts of {model.dim} dimensions",
        context.workspace.vectors,
    )
    named = fingerprints(model)
    # Damaged units count as missing, so exactly these texts are encoded again.
    for name in set(named.values()):
        if rows := mend_table(context.workspace, VECTORS + name):
            context.log.warning(f"{teacher.name}: {rows:,} vectors are in damaged files, and are computed again")
    reference = Reference(model.dim, total, named, "")
    vectors = TeacherVectors(teacher, context.folder, reference, context.workspace, worker)
    if forecast := vectors.forecast(texts, compute):
        context.log.info(f"{teacher.name}: {forecast.texts:,} of {total:,} texts are to be sent: {forecast.words()}")
    started = time.monotonic()
    encoded = vectors.fill(texts, compute, context.log)
    seconds = time.monotonic() - started
    refused = _write_refused(vectors, texts, context)
    there = total - encoded - refused
    context.log.info(f"{teacher.name}: {encoded:,} texts encoded, {there:,} were there already")
    # Read back from the store, not taken from memory: this is what later steps will read.
    content, worst = vectors.digest(vectors.taken(texts))
    reference = replace(reference, rows=total - refused, digest=content)
    (context.folder / REFERENCE).write_text(json.dumps(asdict(reference), indent=1, sort_keys=True))
    _write_description(teacher, model, texts, context.folder)
    if teacher.paid:
        # What was asked for tells the speed; nothing is sent to measure it.
        speed = round(encoded / seconds, 1) if encoded else None
    else:
        probe = texts.take(np.arange(min(PROBE_TEXTS, total)), ["text"]).column("text").to_pylist()
        # Measured in every build, also where nothing was encoded: `estimate` needs a speed of this machine.
        speed = measure_speed(lambda sample: model.encode(sample, "document"), probe)
    taken = Check(TAKEN.name, not refused, f"{refused:,} of {total:,} texts were refused")
    return Result(
        metrics={
            "texts": total,
            "embedded_now": encoded,
            "dim": model.dim,
            "licence": teacher.licence,
            "kind": teacher.kind,
            "parameters": model.parameters(),
            "texts_per_second": speed,
            **({"refused": refused, "cost": teacher.cost(model, texts_by_role(texts))} if teacher.paid else {}),
        },
        checks=(
            Check(
                UNIT_NORM.name,
                worst < NORM_TOLERANCE,
                f"largest deviation of a norm from 1: {worst:.1e}",
                {"worst": worst},
            ),
            *((taken,) if teacher.paid else ()),
        ),
        unhashed_files=(TEACHERS_FILE,),  # it names the model's folder, which decides nothing
    )


def _write_refused(vectors: TeacherVectors, texts: CorpusTexts, context: BuildContext) -> int:
    """Write the texts that the teacher does not take as dropped ones; how many they are."""
    left_out = vectors.left_out(texts)
    if left_out.size:
        columns = ["id", "text", "source", "section", "role", "origin"]
        rows = pl.DataFrame(texts.take(left_out, columns))
        reasons = [vectors.refused(role)[key] for key, role in zip(rows["id"], rows["role"], strict=True)]
        told = rows.with_columns(pl.Series("detail", reasons), value=pl.lit(None), rule=pl.lit(RULE))
        write_dropped([as_dropped(told)], context.folder, context.scratch)
    return int(left_out.size)


def _prepare_environment(teacher: TeacherConfig, context: BuildContext) -> None:
    """Make the teacher's own environment, if it needs one, and say so: it takes minutes."""
    own = teacher.own_environment()
    if own is None:
        return
    context.compute.environments.require(own, f"teacher {teacher.name!r}", context.log.info)
    if not can_close_network():
        context.log.warning(
            f"teacher {teacher.name!r}: this system does not let its encoder run without network; it gets no "
            "secrets, but could send texts elsewhere. Trust its packages and code, or run where `unshare --net` works."
        )


def _training_texts(texts: CorpusTexts) -> list[str]:
    pairs = (pair for batch in texts.scan(["text", "split"]) for pair in zip(*batch.to_pydict().values(), strict=True))
    return [text for text, split in pairs if split == "train"]


def measure_speed(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Texts per second, after some to warm up."""
    encode(texts[:WARM_UP_TEXTS])
    started = time.monotonic()
    encode(texts)
    return round(len(texts) / (time.monotonic() - started), 1)


def _write_description(teacher: TeacherConfig, model: TeacherModel, texts: CorpusTexts, folder: Path) -> None:
    _, roles = read_keys(texts)
    rows = [
        {
            "teacher": teacher.name,
            "role": role,
            "fingerprint": fingerprint,
            "licence": teacher.licence,
            "texts": int((roles == role).sum()),
            # As text: kinds describe themselves with values of different types, and a column has one type.
            **{name: None if value is None else str(value) for name, value in model.describe(role).items()},
            "dim": model.dim,
        }
        for role, fingerprint in fingerprints(model).items()
    ]
    TEACHERS.write(folder, [{name: row.get(name) for name in TEACHERS.schema.names} for row in rows])


def _show(artefact: Artefact) -> Mapping[str, Shown]:
    import pyarrow.parquet as pq

    columns = ["role", "fingerprint", "model", "prompt", "pooling", "max_length", "dtype", "dim", "texts"]
    return {"teacher": Rows(pq.read_table(artefact.folder / TEACHERS_FILE, columns=columns).to_pylist())}
