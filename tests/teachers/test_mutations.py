"""A model whose folder is not what its authors published gets no vector into the store and no weight into a student."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.database import table_names
from stella_assets.storage.workspace import Workspace
from stella_assets.students.dense.settings import DenseConfig
from stella_assets.teachers.examination import KnownVectorsError, examine
from stella_assets.teachers.kinds.base import PublishedTeacher
from stella_assets.teachers.known_vectors import examined_file
from stella_assets.teachers.second_process import examine_in_second_process
from stella_assets.teachers.tables import teacher_tables
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.models import TEXTS
from tests.models.custom_code import AUTO_MAP, CODE
from tests.models.hub import write_commit
from tests.models.mutations import ANOTHER, HARMLESS, MUTATIONS, REFUSED, Mutation, mutated
from tests.models.second import as_teacher, by_library

CPU = Compute("cpu", threads=1)
Published = Callable[[str], Path]
# The student's encoder loads: what comes after it is not the student's, who has a pooling and heads of its own; and a
# whole encoder that tells no texts apart shows in its first losses only.
FIT_TO_TRAIN = {"pooling of another width", "modules without pooling", "a bias for each text alone"}


def store(config: PublishedTeacher, workspace: Workspace) -> TeacherVectors:
    """All that encoding a corpus does, but for the second process, which is stood in for by this one."""
    config.check()
    model = config.open(Path(), CPU)
    named = fingerprints(model)
    file = examined_file(config, CPU, workspace)
    file.parent.mkdir(parents=True, exist_ok=True)
    found = examine(config, model, 0.9999)
    file.write_text(json.dumps({role: rows.tolist() for role, rows in found.items()}))
    vectors = TeacherVectors(config, Path(), Reference(model.dim, 0, named, ""), workspace)
    vectors.embed(TEXTS, "document", CPU)
    return vectors


def changed(mutation: Mutation, published: Published, folder: Path, **settings: Any) -> tuple[Any, Any]:
    """The settings of the published model as a teacher, and of the mutated one."""
    original = as_teacher(mutation.model, published(mutation.model))
    pins = {"code_digest": original.code_digest} if original.code_digest else {}
    return original, as_teacher(
        mutation.model, mutated(mutation, published(mutation.model), folder), **pins, **settings
    )


def known_cosines(vectors: np.ndarray) -> list[dict[str, Any]]:
    """What the model's card would say of some pairs."""
    pairs = [(0, 1), (2, 3), (4, 5), (10, 40), (7, 30), (12, 47)]
    return [{"a": TEXTS[i], "b": TEXTS[j], "cosine": round(float(vectors[i] @ vectors[j]), 3)} for i, j in pairs]


def of_outcome(outcome: str) -> Any:
    chosen = [each for each in MUTATIONS if each.outcome == outcome]
    return pytest.mark.parametrize("mutation", chosen, ids=lambda each: f"{each.model}: {each.name}")


@pytest.mark.slow
@of_outcome(REFUSED)
def test_a_damaged_or_wrong_folder_is_refused(mutation: Mutation, published: Published, tmp_path: Path):
    _, config = changed(mutation, published, tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    with pytest.raises(UserError) as raised:
        store(config, workspace)
    assert raised.value.remedy
    assert teacher_tables(table_names(workspace)) == []
    if config.kind == "static" or mutation.name in FIT_TO_TRAIN:
        return
    pins = {"trust_remote_code": True, "code_digest": config.code_digest} if config.code_digest else {}
    student = DenseConfig.model_validate({"kind": "dense", "model": config.model, "max_length": 32, **pins})
    with pytest.raises(UserError):
        student.initialise(8, 0, CPU)


@of_outcome(ANOTHER)
def test_another_models_vectors_are_kept_apart_and_refused_where_the_card_says_otherwise(
    mutation: Mutation, published: Published, tmp_path: Path
):
    original, config = changed(mutation, published, tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    right = store(original, workspace)
    cosines = known_cosines(right.embed(TEXTS, "document", CPU).astype(np.float32))
    assert not right.tables() & {f"teacher_vectors.{each}" for each in fingerprints(config.open(Path(), CPU)).values()}
    stored = table_names(workspace)
    with pytest.raises(KnownVectorsError, match="expected_cosines"):
        store(config.with_values(expected_cosines=type(original).model_validate(
            {**original.settings(), "expected_cosines": cosines}).expected_cosines), workspace)  # fmt: skip
    assert table_names(workspace) == stored


@of_outcome(HARMLESS)
def test_a_folder_that_gives_the_same_vectors_is_taken(mutation: Mutation, published: Published, tmp_path: Path):
    original, config = changed(mutation, published, tmp_path)
    vectors = [
        store(each, Workspace(tmp_path / str(number))).embed(TEXTS, "document", CPU).astype(np.float32)
        for number, each in enumerate((original, config))
    ]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.999


@pytest.mark.slow
def test_code_of_another_repository_stays_at_its_commit_when_main_moves(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    for path in published("custom_code").iterdir():
        if path.is_file() and path.suffix != ".py":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text((published("custom_code") / "1_Pooling/config.json").read_text())
    named = {key: f"org/new-impl--{reference}" for key, reference in AUTO_MAP.items()}
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "auto_map": named}))
    for name, value in {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    code = {name: CODE / name for name in ("configuration_new.py", "modeling_new.py")}
    write_commit(cache, "org/new-impl", "a" * 40, code)
    settings = {"trust_remote_code": True, "code_revision": "a" * 40}
    config = as_teacher("remote", folder, **settings)
    with pytest.raises(UserError, match=r"names code of another repository, org/new-impl.*`code_revision`"):
        as_teacher("remote", folder, trust_remote_code=True).external_versions(CPU)
    before = examine_in_second_process(config, Path(), Path(), CPU)
    moved = (CODE / "modeling_new.py").read_text() + "\nRotaryEmbedding.forward = lambda self, x, at: x\n"
    write_commit(cache, "org/new-impl", "b" * 40, {**code, "modeling_new.py": moved})
    after = examine_in_second_process(config, Path(), Path(), CPU)
    np.testing.assert_array_equal(before["document"], after["document"])
    own = as_teacher("custom_code", published("custom_code"))
    expected = own.open(Path(), CPU).encode(TEXTS, "document")
    assert (expected * by_library("custom_code", published("custom_code"))).sum(axis=1).min() > 0.9999
    assert (before["document"] * examine(own, own.open(Path(), CPU), 0.9999)["document"]).sum(axis=1).min() > 0.9999
    # The commit is part of the fingerprint, and the other code is another model.
    pinned = as_teacher("remote", folder, trust_remote_code=True, code_revision="b" * 40)
    assert pinned.external_versions(CPU) != config.external_versions(CPU)
    assert (before["document"] * examine_in_second_process(pinned, Path(), Path(), CPU)["document"]).sum(1).min() < 0.99
