"""Code that comes with a model runs only where the recipe trusts and pins it, and it is the pinned code that runs."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.models import (
    CodeError,
    LoadError,
    code_digest,
    load_config,
    load_cross_encoder,
    load_sentence_transformer,
    load_tokenizer,
    model_digest,
)
from stella_assets.students import DenseConfig
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from tests.core.models.folders import change_json
from tests.models import TEXTS, TRUSTED, build
from tests.models.custom_code import CODE
from tests.models.layouts import write_modules
from tests.models.second import as_teacher

OTHER = "org/new-impl"
# Others in each run: transformers keeps code by its commit, and takes it to be always the same.
FIRST, SECOND = secrets.token_hex(20), secrets.token_hex(20)


def trusted(folder: Path, **changes: Any) -> ModelSource:
    return ModelSource(model=str(folder), trust_remote_code=True, **{"code_digest": code_digest(folder), **changes})


def refused_by_everything(settings: dict[str, Any], said: str) -> None:
    source = ModelSource(**settings)
    teacher = {"name": "a", "kind": "sentence_transformers", "licence": "MIT", **settings}
    for attempt in (
        lambda: model_digest(source),
        lambda: load_config(source),
        lambda: load_tokenizer(source),
        lambda: load_sentence_transformer(source),
        lambda: load_cross_encoder(source),
        lambda: DenseConfig(max_length=32, **settings).check([]),
        lambda: SentenceTransformersTeacher.model_validate(teacher).check(),
    ):
        with pytest.raises(CodeError, match=said):
            attempt()


@pytest.mark.parametrize("name", TRUSTED)
def test_code_that_is_not_trusted_is_an_error_and_no_built_in_class_steps_in(
    name: str, published: Callable[[str], Path]
):
    folder = published(name)
    file = "modules.json" if name == "custom_module" else r"config\.json"
    said = (
        f"{file} names code .*trust_remote_code: true` and `code_digest: {code_digest(folder)}`.*set `auto_map: {{}}`"
    )
    refused_by_everything({"model": str(folder)}, said)


def test_a_function_of_a_module_that_is_not_trusted_is_an_error_and_no_other_steps_in(tmp_path: Path):
    folder = build("layout_5", tmp_path)
    change_json(folder / "2_Dense" / "config.json", activation_function="transformers.activations.GELUActivation")
    said = r"2_Dense/config\.json names code in `activation_function` \(transformers\.activations\.GELUActivation\)"
    refused_by_everything({"model": str(folder)}, said)
    trusted_vectors = load_sentence_transformer(trusted(folder)).encode(TEXTS)
    change_json(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.GELU")
    expected = load_sentence_transformer(ModelSource(model=str(folder))).encode(TEXTS)
    np.testing.assert_allclose(trusted_vectors, expected, atol=1e-6)


def test_the_function_of_a_dense_that_the_recipe_chooses_is_no_exception(tmp_path: Path):
    folder = build("layout_5", tmp_path)
    shutil.copytree(folder / "2_Dense", folder / "2_Dense_24")
    change_json(folder / "2_Dense_24" / "config.json", activation_function="transformers.activations.GELUActivation")
    teacher = as_teacher("layout_5", folder, dense_folder="2_Dense_24")
    for attempt in (teacher.check, lambda: teacher.open(Path(), Compute("cpu", threads=1)).encode(TEXTS, "document")):
        with pytest.raises(CodeError, match=r"2_Dense_24/config\.json names code in `activation_function`"):
            attempt()


def test_an_activation_that_transformers_names_is_no_code(tmp_path: Path):
    folder = build("gpt2", tmp_path)
    write_modules(folder, "mean", 32)  # with them, the configuration of the encoder is that of a module, too
    assert '"activation_function": "gelu_new"' in (folder / "config.json").read_text(encoding="utf-8")
    load_config(ModelSource(model=str(folder)))


def test_code_that_the_settings_of_the_transformer_module_name_is_not_passed_over(tmp_path: Path):
    folder = build("bert", tmp_path)
    change_json(folder / "sentence_bert_config.json", config_args={"auto_map": {"AutoModel": "modeling.Other"}})
    refused_by_everything({"model": str(folder)}, r"sentence_bert_config\.json names code in `auto_map\.AutoModel`")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("assert config.hidden_size == 7, 'width'", "AssertionError: width"),
        ("[][1]", "IndexError"),
        ("raise Exception('no kernel')", "Exception: no kernel"),
        ("(", "SyntaxError"),
    ],
)
def test_whatever_code_raises_while_it_is_loaded_the_message_names_the_model(line: str, said: str, tmp_path: Path):
    folder = build("custom_code", tmp_path)
    path = folder / "modeling_new.py"
    before = "        self.embeddings = NewEmbeddings"
    path.write_text(path.read_text(encoding="utf-8").replace(before, f"        {line}\n{before}"), encoding="utf-8")
    with pytest.raises(UserError, match=f"{folder}: the installed libraries cannot run this model .*{said}"):
        load_sentence_transformer(trusted(folder))


def test_code_in_a_folder_of_the_model_is_said_to_be_out_of_reach(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    path = folder / "modeling_new.py"
    path.write_text(path.read_text(encoding="utf-8").replace(".configuration_new", ".parts.configuration_new"))
    with pytest.raises(CodeError, match=r"parts\.configuration_new\.py.*not from folders in it"):
        load_sentence_transformer(trusted(folder))


def test_tensors_that_code_keeps_where_loading_loses_them_are_no_traceback(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    path = folder / "modeling_new.py"
    code = path.read_text(encoding="utf-8")
    code = code.replace("class RotaryEmbedding", "class Tables:\n    pass\n\n\nclass RotaryEmbedding", 1)
    register = 'self.register_buffer("cos_cached", both.cos(), persistent=False)'
    code = code.replace(register, "self.tables = Tables()\n        self.tables.cos = both.cos()")
    path.write_text(code.replace("self.cos_cached", "self.tables.cos"), encoding="utf-8")
    teacher = as_teacher("custom_code", folder)
    with pytest.raises(LoadError, match=f"{folder}: the installed libraries cannot run this model .*meta"):
        teacher.open(Path(), Compute("cpu", threads=1)).encode(TEXTS, "document")


def test_trust_without_a_pin_asks_for_the_digest_of_the_code(published: Callable[[str], Path]):
    folder = published("custom_code")
    said = f"digest {code_digest(folder)}, and `code_digest` is not set.*set `code_digest: {code_digest(folder)}`"
    refused_by_everything({"model": str(folder), "trust_remote_code": True}, said)


def test_changed_code_is_refused(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    pin = code_digest(folder)
    with (folder / "modeling_new.py").open("a") as file:
        file.write("# changed\n")
    refused_by_everything(
        {"model": str(folder), "trust_remote_code": True, "code_digest": pin},
        f"digest {code_digest(folder)}, and `code_digest` is {pin}",
    )


def test_the_digest_of_a_model_names_its_code_and_how_it_is_loaded(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    plain = build("bert", tmp_path)
    digests = {
        model_digest(trusted(folder)),
        model_digest(trusted(folder, config_kwargs={"rope_theta": 500.0})),
        model_digest(trusted(folder, tokenizer_kwargs={"do_lower_case": False})),
        model_digest(ModelSource(model=str(plain))),
        model_digest(ModelSource(model=str(plain), model_kwargs={"attn_implementation": "eager"})),
        model_digest(ModelSource(model="org/a", revision=FIRST)),
        model_digest(ModelSource(model="org/a", revision=FIRST, trust_remote_code=True)),
        model_digest(ModelSource(model="org/a", revision=FIRST, trust_remote_code=True, code_revision=SECOND)),
    }
    assert len(digests) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "org/a", "revision": "main", "trust_remote_code": True}, "full commit hash"),
        (
            {"model": "./a", "trust_remote_code": True, "code_revision": "main"},
            "code_revision needs to be a full",
        ),
        ({"model": "./a", "code_digest": "0"}, "only runs with `trust_remote_code: true`"),
        ({"model": "org/a", "revision": "1", "trust_remote_code": True, "code_digest": "0"}, "is for a folder"),
        ({"model": "./a", "model_kwargs": {"dtype": "float16"}}, "model_kwargs has 'dtype'"),
        ({"model": "./a", "config_kwargs": {"trust_remote_code": True}}, "config_kwargs has 'trust_remote_code'"),
        ({"model": "./a", "tokenizer_kwargs": {"revision": "main"}}, "tokenizer_kwargs has 'revision'"),
        ({"model": "./a", "model_kwargs": {"device_map": "auto"}}, "model_kwargs has 'device_map'"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        ModelSource(**settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache without a network, with two commits of a repository of code; `main` is the second."""
    folder = tmp_path / "hub"
    repository = folder / f"models--{OTHER.replace('/', '--')}"
    for commit, factor in ((FIRST, "1.0"), (SECOND, "3.0")):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in CODE.glob("*_new.py"):
            text = path.read_text(encoding="utf-8")
            (snapshot / path.name).write_text(text.replace("both.cos()", f"({factor} * both).cos()"), encoding="utf-8")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SECOND)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def with_code_elsewhere(parent: Path) -> Path:
    """As gte-large-en-v1.5: the configuration names another repository, and the folder has no code."""
    folder = parent / "custom_code"
    if not folder.is_dir():
        build("custom_code", parent)
    for path in folder.glob("*.py"):
        path.unlink()
    names = {"AutoConfig": "configuration_new.NewConfig", "AutoModel": "modeling_new.NewModel"}
    change_json(folder / "config.json", auto_map={key: f"{OTHER}--{value}" for key, value in names.items()})
    return folder


def test_code_of_another_repository_is_that_of_the_pinned_commit(cache: Path, tmp_path: Path):
    own = build("custom_code", tmp_path)
    expected = load_sentence_transformer(trusted(own)).encode(TEXTS)
    folder = with_code_elsewhere(tmp_path)
    pinned = {commit: trusted(folder, code_revision=commit) for commit in (FIRST, SECOND)}
    vectors = {commit: load_sentence_transformer(source).encode(TEXTS) for commit, source in pinned.items()}
    np.testing.assert_allclose(vectors[FIRST], expected, atol=1e-5)
    assert np.abs(vectors[SECOND] - expected).max() > 0.01
    assert model_digest(pinned[FIRST]) != model_digest(pinned[SECOND])


def test_code_of_another_repository_is_not_run_without_a_pin(cache: Path, tmp_path: Path):
    folder = with_code_elsewhere(tmp_path)
    refused_by_everything(
        {"model": str(folder), "trust_remote_code": True}, f"names code of another repository, {OTHER}.*`code_revision`"
    )
    said = rf"{folder}: configuration_new\.py of {OTHER} cannot be read .*correct `auto_map`"
    with pytest.raises(CodeError, match=said):
        load_sentence_transformer(trusted(folder, code_revision="c" * 40))


def test_a_model_of_the_hub_is_checked_once_its_configuration_is_there(cache: Path, tmp_path: Path):
    snapshot = cache / "models--org--model" / "snapshots" / FIRST
    snapshot.parent.mkdir(parents=True)
    with_code_elsewhere(tmp_path).rename(snapshot)
    plain = {"model": "org/model", "revision": FIRST}
    for settings, said in (
        ({}, r"config\.json names code"),
        ({"trust_remote_code": True}, "code of another repository"),
    ):
        for load in (load_sentence_transformer, load_cross_encoder):
            with pytest.raises(CodeError, match=said):
                load(ModelSource(**plain, **settings))
    source = ModelSource(**plain, trust_remote_code=True, code_revision=FIRST)
    assert load_sentence_transformer(source).encode(TEXTS[:2]).shape == (2, 32)
