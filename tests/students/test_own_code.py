"""A student whose code came with its base model is saved so that other programs give the same vectors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute
from stella_assets.core.models import ConfigError, code_digest, load_sentence_transformer
from stella_assets.students import FULL, DenseConfig
from tests.core.models.folders import change_json
from tests.models import TEXTS, build

BY_THE_LIBRARY = """
import sys, json, numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", trust_remote_code=True)
np.save(sys.argv[2], model.encode(json.load(open(sys.argv[3]))))
"""


def test_a_clean_process_without_this_package_gives_the_students_vectors(
    published: Callable[[str], Path], tmp_path: Path
):
    base = published("custom_code")
    pins = {"trust_remote_code": True, "code_digest": code_digest(base)}
    config = DenseConfig(model=str(base), max_length=32, matryoshka_dims=(8,), keep_layers=2, **pins)
    student = config.initialise(16, 1, Compute("cpu"))
    student.dtype = "float32"
    expected = student.encode(TEXTS)
    # Twice, as a stage continues from the one before.
    student.save(tmp_path / "first", FULL, {})
    again = config.load(tmp_path / "first", Compute("cpu"))
    again.dtype = "float32"
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    again.save(tmp_path / "second", FULL, {})
    saved = json.loads((tmp_path / "second" / "config.json").read_text())
    assert saved["rope_scaling"]["factor"] == 2.0
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    files = [str(tmp_path / name) for name in ("second", "vectors.npy", "texts.json")]
    subprocess.run([sys.executable, "-c", BY_THE_LIBRARY, *files], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-5)


def test_positions_that_code_would_drop_are_an_error(tmp_path: Path):
    folder = build("custom_code", tmp_path)
    scaling = json.loads((folder / "config.json").read_text())["rope_scaling"]
    change_json(folder / "config.json", rope_scaling=None, rope_parameters={"rope_type": "ntk", **scaling})
    source = ModelSource(model=str(folder), trust_remote_code=True, code_digest=code_digest(folder))
    with pytest.raises(ConfigError, match=r"states `rope_parameters`, and NewConfig .*`rope_scaling`"):
        load_sentence_transformer(source)
