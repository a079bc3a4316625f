"""Files of a model's folder that a person or a program has damaged."""

import json
from pathlib import Path

import pytest

from stella_assets.core.models.source import ModelNotFoundError, read_config

MODULE = {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}


@pytest.mark.parametrize("path", ["n" * 300, "./" + "n/" * 3000, "é" * 200, ["x"], None])
@pytest.mark.parametrize("place", [0, 1])
def test_a_module_whose_path_no_folder_can_have_is_refused_with_the_file(path: object, place: int, tmp_path: Path):
    modules = [MODULE, MODULE]
    modules[place] = {**MODULE, "path": path}
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"modules\.json: is not a list of modules with `path` and `type`"):
        read_config(tmp_path, "modules.json")
