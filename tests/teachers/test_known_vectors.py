"""A teacher's known vectors: a model that is not loaded as its authors published it stores no vector."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.storage.database import table_names, table_uri
from stella_assets.storage.notes import read_note, write_note
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers import known_vectors
from stella_assets.teachers.catalogue import describe
from stella_assets.teachers.examination import PROBE, KnownVectorsError, examine, without_direction
from stella_assets.teachers.kinds import TEACHERS
from stella_assets.teachers.kinds.base import PublishedTeacher
from stella_assets.teachers.known_vectors import NOTE, require_examined, require_known
from stella_assets.teachers.tables import VECTORS
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from tests.models import TEXTS, build
from tests.models.mutations import tensors

CPU = Compute("cpu", threads=1)
Published = Callable[[str], Path]


def teacher(folder: Path, kind: str = "sentence_transformers", **settings: Any) -> PublishedTeacher:
    known = {"name": "small", "kind": kind, "licence": "MIT", "model": str(folder)}
    if kind == "sentence_transformers":
        known |= {"dtype": "float32", "max_length": 64}
    made = TEACHERS[kind].model_validate({**known, **settings})
    assert isinstance(made, PublishedTeacher)
    return made


def opened(config: PublishedTeacher, workspace: Workspace) -> TeacherVectors:
    model = config.open(Path(), CPU)
    return TeacherVectors(config, Path(), Reference(model.dim, 0, fingerprints(model), ""), workspace)


def table_of(vectors: TeacherVectors, role: str = "document") -> str:
    return VECTORS + vectors.fingerprints[role]


def test_vectors_of_the_probe_are_kept_and_are_those_of_the_library(published: Published, workspace: Workspace):
    config = teacher(published("qwen3"), prompts={"query": "Query: "})
    vectors = opened(config, workspace)
    vectors.embed(TEXTS[:5], "query", CPU)
    note = json.loads(read_note(workspace, table_of(vectors, "query"), NOTE) or "")
    library = SentenceTransformer(str(published("qwen3")), device="cpu")
    expected = library.encode(list(PROBE), prompt="Query: ", normalize_embeddings=True)
    assert (np.array(note["vectors"]) * expected).sum(axis=1).min() > 0.9999
    shown = describe(workspace, vectors.fingerprints["query"])["known_vectors"]
    assert shown["texts"] == len(PROBE)
    assert shown["transformers"] == note["made_with"]["transformers"]


def test_a_second_process_is_started_once_per_model_and_workspace(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known_vectors, "_examined", {})  # what earlier tests of this process found
    said: list[str] = []
    config, workspace = teacher(published("static_embedding"), "static"), Workspace(tmp_path / "workspace")
    for _ in range(2):
        second = require_examined(config, Path(), CPU, workspace, said.append)
    assert len(said) == 1
    made = config.open(Path(), CPU).encode(list(PROBE), "document")
    np.testing.assert_allclose(second["document"], made, atol=1e-5)
    (kept,) = workspace.locks.iterdir()
    whole = kept.read_text()
    kept.write_text(whole.replace("0.1", "0.2", 1))
    monkeypatch.setattr(known_vectors, "_examined", {})
    second = require_examined(config, Path(), CPU, workspace, said.append)
    np.testing.assert_allclose(second["document"], made, atol=1e-5)
    assert (kept.read_text(), len(said)) == (whole, 2)


def test_vectors_that_are_there_need_neither_model_nor_process(published: Published, workspace: Workspace):
    config = teacher(published("static_embedding"), "static")
    vectors = opened(config, workspace)
    vectors.embed(TEXTS[:5], "document", CPU)
    (Path(table_uri(workspace, table_of(vectors))) / "_notes" / NOTE).unlink()
    again = opened(config, workspace)
    again.embed(TEXTS[:5], "document", CPU)
    assert read_note(workspace, table_of(vectors), NOTE) is None
    # An older table gets them when it is written next.
    again.embed(TEXTS[5:9], "document", CPU)
    assert read_note(workspace, table_of(vectors), NOTE) is not None


def test_a_process_that_loads_other_vectors_stores_none(published: Published, workspace: Workspace):
    config, other = teacher(published("bert")), teacher(published("electra"))
    second = examine(other, other.open(Path(), CPU), 0.9999)
    model = config.open(Path(), CPU)
    with pytest.raises(UserError, match=r"this process and a second one loaded it with different vectors.*cosine"):
        require_known(config, model, "document", second, workspace, CPU)
    assert table_names(workspace) == []


def test_a_table_whose_teacher_computes_otherwise_now_gets_no_vectors(published: Published, workspace: Workspace):
    config = teacher(published("bert"))
    vectors = opened(config, workspace)
    vectors.embed(TEXTS[:3], "document", CPU)
    note = unseal(json.loads(read_note(workspace, table_of(vectors), NOTE) or ""))
    note["made_with"]["transformers"] = "4.57.0"
    note["vectors"] = np.roll(np.array(note["vectors"]), 1, axis=1).tolist()
    write_note(workspace, table_of(vectors), NOTE, json.dumps(note))
    with pytest.raises(UserError, match=r"does not make the vectors any more.*transformers 4.57.0 is now"):
        opened(config, workspace).embed(TEXTS, "document", CPU)
    assert len(opened(config, workspace)._stored.table("document")) == 3
    # A digit of what was kept must not blame the model.
    write_note(workspace, table_of(vectors), NOTE, json.dumps(seal(note)).replace("4.57.0", "4.57.1"))
    with pytest.raises(UserError, match=r"known_vectors.json: cannot be read \(its digest is another one\)"):
        opened(config, workspace).embed(TEXTS, "document", CPU)
    write_note(workspace, table_of(vectors), NOTE, "{}")
    with pytest.raises(UserError, match=r"known_vectors.json: cannot be read.*Delete the file"):
        opened(config, workspace).embed(TEXTS, "document", CPU)


def test_another_library_that_computes_the_same_may_go_on(published: Published, workspace: Workspace):
    vectors = opened(teacher(published("bert")), workspace)
    vectors.embed(TEXTS[:3], "document", CPU)
    note = unseal(json.loads(read_note(workspace, table_of(vectors), NOTE) or ""))
    note["made_with"] = {"transformers": "4.57.0"}
    write_note(workspace, table_of(vectors), NOTE, json.dumps(note))
    opened(teacher(published("bert")), workspace).embed(TEXTS, "document", CPU)


def test_cosines_of_the_models_card_are_checked_with_their_prompts(published: Published, workspace: Workspace):
    folder = published("qwen3")
    library = SentenceTransformer(str(folder), device="cpu")
    a = library.encode(TEXTS[0], prompt="Query: ", normalize_embeddings=True)
    b = library.encode(TEXTS[1], normalize_embeddings=True)
    right = {"a": TEXTS[0], "b": TEXTS[1], "role_a": "query", "cosine": round(float(a @ b), 2)}
    prompted = teacher(folder, prompts={"query": "Query: "}, expected_cosines=[right])
    assert set(examine(prompted, prompted.open(Path(), CPU), 0.9999)) == {"document", "query"}
    plain = teacher(folder, expected_cosines=[right])
    with pytest.raises(UserError, match=r"expected_cosines: 'Sort an array.* as query .*not .* within 0.01.*card"):
        opened(plain, workspace).embed(TEXTS, "document", CPU)
    assert table_names(workspace) == []


def test_a_decoder_whose_positions_move_with_the_padding_is_refused(tmp_path: Path):
    folder = build("gpt2", tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left", "pad_token": "<|endoftext|>"}))
    with pytest.raises(UserError, match=r"are not those of its authors' library.*depend on padding"):
        examine(teacher(folder), teacher(folder).open(Path(), CPU), 0.9999)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_a_text_without_tokens_is_stored_as_any_other(name: str, published: Published, workspace: Workspace):
    """Tasks have empty texts, and some decoders' tokenizers add no token of their own."""
    vectors = opened(teacher(published(name)), workspace)
    mixed = vectors.embed(["", *TEXTS[:3]], "document", CPU).astype(np.float32)
    alone = teacher(published(name)).open(Path(), CPU).encode([""], "document")
    assert np.linalg.norm(alone) == pytest.approx(1)
    np.testing.assert_allclose(mixed[:1], alone, atol=1e-3)


LAST = "encoder.layer.2.output.LayerNorm."


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda found: found[f"{LAST}weight"].zero_(), r"gives 'sort' and 'How do I .*' the same vector.*`max_length`"),
        (lambda found: [found[LAST + name].zero_() for name in ("weight", "bias")], r"of 'sort' has norm 0, not 1"),
        (lambda found: found["encoder.layer.0.output.LayerNorm.weight"].fill_(1e37), r"of 'sort' has norm nan, not 1"),
    ],
    ids=["one vector", "zeros", "not finite"],
)
def test_a_model_that_says_nothing_of_a_text_is_refused(fault: Any, message: str, tmp_path: Path):
    folder = build("bert", tmp_path)
    tensors(fault)(folder)
    config = teacher(folder)
    with pytest.raises(KnownVectorsError, match=message):
        examine(config, config.open(Path(), CPU), 0.9999)


def test_a_teacher_whose_prompt_leaves_no_room_for_the_text_is_refused(published: Published):
    config = teacher(published("bert"), max_length=8, prompts={"query": "a long prompt " * 9})
    with pytest.raises(KnownVectorsError, match="the same vector"):
        examine(config, config.open(Path(), CPU), 0.9999)


def test_encoders_with_narrow_cones_are_no_fault():
    # First tokens of encoders that were only pretrained have cosines of 0.9999 with one another.
    rng, apart = np.random.default_rng(0), 5e-3
    cone_PD = np.ones((8, 768)) / 768**0.5 + apart * rng.standard_normal((8, 768)) / 768**0.5
    unit_PD = cone_PD / np.linalg.norm(cone_PD, axis=1, keepdims=True)
    assert (unit_PD @ unit_PD.T).min() > 0.9999
    assert without_direction(cone_PD.astype(np.float32)) == ()


def test_expectations_alone_change_the_identity_of_the_step_and_never_a_fingerprint(published: Published):
    expected = [{"a": "a", "b": "b", "cosine": 0.5}]
    plain, stated = teacher(published("bert")), teacher(published("bert"), expected_cosines=expected)
    assert "expected_cosines" not in plain.identity_settings()
    assert plain.identity_settings() != stated.identity_settings()
    assert fingerprints(plain.open(Path(), CPU)) == fingerprints(stated.open(Path(), CPU))


def test_the_second_process_says_what_is_wrong_as_this_one_would(tmp_path: Path, workspace: Workspace):
    folder = build("bert", tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match=r"model.safetensors: is damaged or cut off.*Copy or download"):
        require_examined(teacher(folder), Path(), CPU, workspace, logging.getLogger("test").info)
