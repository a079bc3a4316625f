"""Models with code in their folder, in the style of those that the presets name; the code is in `code/`."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tests.models.architectures import randomise, write_json, write_tokenizer_config
from tests.models.layouts import write_modules
from tests.models.registry import TRUSTED, model
from tests.models.vocabularies import wordpiece

CODE = Path(__file__).with_name("code")
AUTO_MAP = {"AutoConfig": "configuration_new.NewConfig", "AutoModel": "modeling_new.NewModel"}


def construct(config: dict[str, Any]) -> Any:
    """The model as its author constructs it: by its class, with random weights and right buffers."""
    modeling = _import("modeling_new")
    torch.manual_seed(0)
    return randomise(modeling.NewModel(modeling.NewConfig(**config)))


def _import(name: str) -> ModuleType:
    """A module of `code/` under a package of its own, so that its relative imports work."""
    full = f"tests_models_code.{name}"
    if full in sys.modules:
        return sys.modules[full]
    if "tests_models_code" not in sys.modules:
        package = ModuleType("tests_models_code")
        package.__path__ = [str(CODE)]
        sys.modules["tests_models_code"] = package
    spec = importlib.util.spec_from_file_location(full, CODE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules[full] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@model("custom_code", TRUSTED)
def custom_code(folder: Path, **config: Any) -> None:
    """As gte-large-en-v1.5 and stella_en_400M: rotary tables in buffers that are not saved, and a scaled base."""
    tokens = wordpiece(folder)
    write_tokenizer_config(folder, "BertTokenizer", do_lower_case=True)
    settings = {"vocab_size": tokens, "rope_scaling": {"type": "ntk", "factor": 2.0}, **config}
    made = construct(settings)
    made.save_pretrained(str(folder))
    for name in ("configuration_new.py", "modeling_new.py"):
        shutil.copy(CODE / name, folder / name)
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # As written by transformers 4, of whose time this code is.
    if saved.pop("rope_parameters", None):
        saved["rope_scaling"] = settings["rope_scaling"]
    write_json(folder / "config.json", {**saved, "auto_map": AUTO_MAP, "architectures": ["NewModel"]})
    write_modules(folder, "cls", 32)


@model("custom_code_known_type", TRUSTED)
def custom_code_known_type(folder: Path) -> None:
    """As nomic-embed-text-v1.5: code of its own under a `model_type` that transformers has a class for, too."""
    custom_code(folder)
    for name in ("configuration_new.py", "config.json"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace('"new"', '"bert"'), encoding="utf-8")
    write_modules(folder, "mean", 32, prompts={"query": "search_query: ", "document": "search_document: "})


@model("custom_module", TRUSTED)
def custom_module(folder: Path) -> None:
    """As jina-embeddings-v3: `modules.json` names a module whose code is in the folder."""
    from tests.models.architectures import bert

    bert(folder)
    shutil.copy(CODE / "custom_st.py", folder / "custom_st.py")
    write_json(folder / "scale.json", {"token_scale": 0.5})
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = "custom_st.Scaled"
    write_json(folder / "modules.json", modules)
