"""Encoding in units: every engine gives the same vectors, byte by byte, and reports errors of its processes."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from stella_assets.core.devices import Compute
from stella_assets.core.engine import Engine, LocalEngine, ProcessesEngine
from stella_assets.core.errors import UserError
from stella_assets.storage.codecs import vectors_to_numpy
from stella_assets.storage.database import open_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds import StaticTeacher
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.snapshots import Corpus
from tests.teachers.test_static import DIM, model2vec, table

LOG = logging.getLogger("test")


@pytest.fixture(scope="module")
def processes() -> Iterator[Engine]:
    engine = ProcessesEngine(devices=("cpu", "cpu"))
    yield engine
    engine.close()


def compute(engine: Engine) -> Compute:
    return Compute("cpu", threads=engine.workers, engine=engine)


@pytest.fixture
def teacher(tmp_path: Path) -> StaticTeacher:
    folder = str(model2vec(tmp_path / "model"))
    return StaticTeacher(name="words", kind="static", licence="MIT", model=folder, unit_rows=32)


def vectors_in(workspace: Workspace, teacher: StaticTeacher) -> TeacherVectors:
    model = teacher.open(Path(), Compute("cpu", 1))
    return TeacherVectors(teacher, Path(), Reference(model.dim, 0, fingerprints(model), ""), workspace)


def content(workspace: Workspace, vectors: TeacherVectors) -> list[tuple[list[str], bytes]]:
    """Ids and bytes of the vectors of each unit, in order; Lance's files of equal rows differ in their padding."""
    (name,) = vectors.tables()
    units = [fragment.to_table() for fragment in open_table(workspace, name).get_fragments()]
    return [(unit.column("id").to_pylist(), vectors_to_numpy(unit.column("vector")).tobytes()) for unit in units]


@pytest.mark.slow
def test_one_process_per_device_gives_the_bytes_of_one_process(
    tmp_path: Path, teacher: StaticTeacher, processes: Engine
):
    corpus, made = Corpus(range(200)), []
    for name, engine in (("one", LocalEngine()), ("several", processes)):
        workspace = Workspace(tmp_path / name)
        vectors = vectors_in(workspace, teacher)
        assert vectors.count_missing(corpus) == 200
        assert vectors.fill(corpus, compute(engine), LOG) == 200
        assert (vectors.count_missing(corpus), vectors.fill(corpus, compute(engine), LOG)) == (0, 0)
        made.append((content(workspace, vectors), vectors.digest(corpus)))
    assert made[0] == made[1]
    assert len(made[0][0]) == 7  # 180 documents and 20 queries in units of 32


def test_a_resumed_run_of_several_processes_computes_only_what_is_missing(
    workspace: Workspace, teacher: StaticTeacher, processes: Engine
):
    vectors_in(workspace, teacher).fill(Corpus(range(50)), compute(LocalEngine()), LOG)
    vectors = vectors_in(workspace, teacher)
    assert vectors.fill(Corpus(range(120)), compute(processes), LOG) == 70
    assert vectors.embed(["graph", "text number 3", "graph"], "document", compute(processes)).shape == (3, DIM)


def test_an_error_of_a_process_is_reported_with_its_remedy(
    workspace: Workspace, teacher: StaticTeacher, processes: Engine
):
    vectors = vectors_in(workspace, teacher)
    changed = table(seed=1)
    save_file({"embeddings": changed}, Path(teacher.model) / "model.safetensors")
    with pytest.raises(UserError, match="its files changed meanwhile") as found:
        vectors.fill(Corpus(range(40)), compute(processes), LOG)
    assert found.value.remedy == "Set `dtype` in the recipe, or run again."
    assert vectors.count_missing(Corpus(range(40))) == 40


def test_a_teacher_is_sent_to_other_processes_without_its_model(teacher: StaticTeacher):
    import pickle

    from stella_assets.teachers.worker import EncodeWorker

    worker = EncodeWorker(teacher, Path("folder"))
    model = worker.model(Compute("cpu", 1))
    assert worker.model(Compute("cpu", 1)) is model
    copy = pickle.loads(pickle.dumps(worker))  # noqa: S301 (made here)
    assert (copy, copy._models) == (worker, [])
    assert copy.teacher.resolve(".") == teacher.resolve(".")
