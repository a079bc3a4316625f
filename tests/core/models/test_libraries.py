"""Where published code does not run on our libraries, the message says which environment would run it."""

import json
from pathlib import Path

import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest, load_sentence_transformer
from stella_assets.core.models.libraries import LoadError
from stella_assets.core.models.shape import ConfigError, load_config, read_shape
from stella_assets.teachers.kinds import SentenceTransformersTeacher
from tests.models import TEXTS, build

OLD_IMPORT = "from transformers.models.mistral.modeling_mistral import MISTRAL_INPUTS_DOCSTRING\n"
PINNED = "sentence-transformers==2.7.0, transformers==4.42.4"
RECIPE = "environment: {requirements: libraries.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that was published with older libraries."""
    folder = build("custom_code", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "4.42.4"}))
    versions = {"sentence_transformers": "2.7.0", "transformers": "4.41.0", "pytorch": "2.2.0+cu121"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": versions}))
    return folder


def source(folder: Path) -> ModelSource:
    return ModelSource(model=str(folder), trust_remote_code=True, code_digest=code_digest(folder))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (OLD_IMPORT, [PINNED, "cannot import name 'MISTRAL_INPUTS_DOCSTRING'"]),
        ("import gone_package, flash_attn\n", [PINNED, "gone_package", "flash-attn"]),
        ("raise AttributeError('all_tied_weights_keys')\n", [PINNED, "all_tied_weights_keys"]),
    ],
)
def test_code_that_does_not_load_names_its_libraries(code: str, said: list[str], folder: Path):
    modeling = folder / "modeling_new.py"
    modeling.write_text(code + modeling.read_text())
    with pytest.raises(LoadError) as failed:
        load_sentence_transformer(source(folder))
    for word in said:
        assert word in str(failed.value)
    assert RECIPE in failed.value.remedy
    assert "uv pip compile --generate-hashes" in failed.value.remedy


def test_a_configuration_that_does_not_load_names_them_too(folder: Path):
    configuration = folder / "configuration_new.py"
    configuration.write_text(OLD_IMPORT + configuration.read_text())
    with pytest.raises(ConfigError) as failed:
        load_config(source(folder))
    assert PINNED in failed.value.remedy


def test_a_configuration_whose_sizes_are_not_read_names_them_too(folder: Path):
    configuration = folder / "configuration_new.py"
    sizeless = "\nNewConfig.get_text_config = lambda self, **_: type('Old', (), {'model_type': 'new'})()\n"
    configuration.write_text(configuration.read_text() + sizeless)
    with pytest.raises(ConfigError, match="states hidden_size None") as failed:
        read_shape(source(folder))
    assert PINNED in failed.value.remedy


def test_code_that_fails_while_it_encodes_names_them_too(folder: Path):
    modeling = folder / "modeling_new.py"
    text = modeling.read_text()
    # As gte's and nomic's code calls functions of `PreTrainedModel` that are gone.
    call = "        self.get_head_mask_of_old(None, 2)\n"
    start = text.index("\n", text.index("def forward", text.index("class NewModel"))) + 1
    while not text[:start].rstrip().endswith(":"):
        start = text.index("\n", start) + 1
    modeling.write_text(text[:start] + call + text[start:])
    trust = {"trust_remote_code": True, "code_digest": code_digest(folder)}
    known = {"name": "new", "kind": "sentence_transformers", "licence": "MIT", "model": str(folder), **trust}
    model = SentenceTransformersTeacher.model_validate(known).open(Path(), Compute("cpu", 1))
    with pytest.raises(UserError, match="get_head_mask_of_old") as failed:
        model.encode(TEXTS, "document")
    assert PINNED in failed.value.remedy


def test_a_model_without_code_of_its_own_is_told_to_restore_its_files(tmp_path: Path):
    folder = build("bert", tmp_path)
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": "many"}')
    with pytest.raises(UserError) as failed:
        load_sentence_transformer(ModelSource(model=str(folder)))
    assert "environment" not in failed.value.remedy


@pytest.mark.parametrize(
    ("saved_with", "code", "remedy"),
    [
        ("4.43.0.dev0", OLD_IMPORT, "Its files ask for sentence-transformers, transformers==4.43.0."),
        ("4.43.0.dev0", "import gone_package\n", "sentence-transformers, transformers==4.43.0, gone_package."),
        ("5.1.0", "import gone_package\n", "install gone_package where this package is installed"),
        (None, OLD_IMPORT, "Use the libraries that the model's authors name"),
    ],
)
def test_only_versions_that_an_environment_can_have_are_named(
    saved_with: str | None, code: str, remedy: str, folder: Path
):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": saved_with}))
    (folder / "config_sentence_transformers.json").unlink()
    (folder / "modeling_new.py").write_text(code)
    with pytest.raises(LoadError) as failed:
        load_sentence_transformer(source(folder))
    assert remedy in failed.value.remedy
