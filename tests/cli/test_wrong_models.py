"""`stella validate` of recipes whose models cannot be used: exit code 2, and a message that is true and helps."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.models.mutations import config, modules, remove, sharded

Published = Callable[[str], Path]
Change = Callable[[dict[str, Any], Published, Path], Any]

VALIDATE = """
import contextlib, io, json, os, sys
from pathlib import Path
from stella_assets.pipelines.cli import main

for path in map(Path, sys.argv[1:]):
    # Of the processor, also of other processes: the clock would measure what else the machine does.
    said, started, code = io.StringIO(), sum(os.times()[:4]), 0
    sys.argv = ["stella", "validate", str(path), *(["--no-rehearsal"] if path.stem.startswith("valid") else [])]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    found = {"code": code, "said": " ".join(said.getvalue().split()), "seconds": sum(os.times()[:4]) - started}
    path.with_suffix(".json").write_text(json.dumps(found))
"""
"""All recipes in one process, so that libraries are loaded once."""


def copied(published: Path, parent: Path, *changes: Callable[[Path], Any]) -> str:
    folder = parent / f"model_{len(list(parent.glob('model_*')))}"
    shutil.copytree(published, folder)
    for change in changes:
        change(folder)
    return str(folder)


def empty(parent: Path, *files: str) -> str:
    """A folder with files of a model, but for its configuration."""
    folder = parent / f"model_{len(list(parent.glob('model_*')))}"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return str(folder)


def as_pickle(folder: Path) -> None:
    import torch

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def exported(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"onnx")
    (folder / "model.safetensors").unlink()


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')


def of_family(family: str) -> Callable[[Path], Any]:
    return config("config_sentence_transformers.json", model_type=family)


def reranker(folder: Path) -> None:
    """As a CrossEncoder was saved before version 6: a transformers model alone, with a head for scores."""
    (folder / "modules.json").unlink()
    config(architectures=["BertForSequenceClassification"])(folder)


def module(place: int, kind: str) -> Callable[[Path], Any]:
    return modules(lambda found: found[place].update(type=kind))


def pictures(folder: Path) -> None:
    TOKENIZER(folder)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')


def padded_on_the_left(folder: Path) -> None:
    """GPT-2 counts positions from the first column, padding included."""
    config("tokenizer_config.json", padding_side="left", pad_token="<|endoftext|>")(folder)


def recurrent(folder: Path) -> None:
    """An LSTM over the states of an encoder: it needs lengths that only tables of words give."""
    from sentence_transformers.sentence_transformer.modules import LSTM

    (folder / "2_LSTM").mkdir()
    LSTM(32, 16).save(str(folder / "2_LSTM"))
    own = {"idx": 1, "name": "lstm", "path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}
    modules(lambda found: found.insert(1, own))(folder)


QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True}
TOKENIZER = remove("tokenizer.json", "vocab.txt", "tokenizer_config.json")


def student(*changes: Callable[[Path], Any], name: str = "bert") -> Change:
    return lambda raw, published, parent: raw["student"].update(model=copied(published(name), parent, *changes))


def teacher(*changes: Callable[[Path], Any], name: str = "bert", **settings: Any) -> Change:
    known = {"name": "own", "kind": "sentence_transformers", "licence": "MIT", **settings}
    return lambda raw, published, parent: raw["teachers"].append(
        {**known, "model": copied(published(name), parent, *changes)}
    )


def only_teacher(*changes: Callable[[Path], Any], name: str = "bert") -> Change:
    def change(raw: dict[str, Any], published: Published, parent: Path) -> None:
        teacher(*changes, name=name)(raw, published, parent)
        raw.update(teachers=raw["teachers"][1:], release={**raw["release"], "dimension": 32})

    return change


def named(owner: str, *files: str) -> Change:
    def change(raw: dict[str, Any], _published: Published, parent: Path) -> None:
        known = {"name": "own", "kind": "sentence_transformers", "licence": "MIT"}
        model = empty(parent, *files)
        raw["student"].update(model=model) if owner == "student" else raw["teachers"].append({**known, "model": model})

    return change


def settings(**values: Any) -> Change:
    return lambda raw, _published, _parent: raw["student"].update(values)


def gguf_file(raw: dict[str, Any], _published: Published, parent: Path) -> None:
    (parent / "model.gguf").write_bytes(b"GGUF")
    raw["student"].update(model=str(parent / "model.gguf"))


WRONG: dict[str, tuple[Change, str, str]] = {
    "CLIP": (student(name="clip"), "CLIPModel, not with a Transformer", "As a teacher, this model may do"),
    "model2vec student": (student(name="model2vec"), "StaticEmbedding, not with a Transformer", "As a teacher"),
    "model2vec teacher": (teacher(name="model2vec"), "table of token vectors", "`kind: static`"),
    "no tokenizer": (student(TOKENIZER), "tokenizer has no vocabulary", "Restore the files of the tokenizer"),
    "teacher without tokenizer": (teacher(TOKENIZER), "tokenizer has no vocabulary", "Restore the files"),
    "pooling": (settings(pooling="max"), "student.pooling", "mean"),
    "dimension": (settings(matryoshka_dims=[99, 16], matryoshka_heads="prefix"), "matryoshka_dims 99", "at most 24"),
    "layers": (settings(keep_layers=[0, 9]), "keep_layers [0, 9]", "layers 0 to 2"),
    "length": (settings(max_length=999), "max_length 999 is above", "Lower it"),
    "prompt": (settings(query_prompts=["s2s"]), "query_prompts names 's2s'", "prompts"),
    "prompt of the evaluation": (
        lambda raw, _published, _parent: raw.update(evaluation={"prompts": {"query": "s2s"}}),
        "'s2s'",
        "prompts",
    ),
    "adapter": (named("student", "adapter_config.json", "adapter_model.safetensors"), "(LoRA)", "merge_and_unload"),
    "adapter with configuration": (teacher(adapter), "no weights in safetensors", "merge_and_unload"),
    "GGUF file": (gguf_file, "model.gguf: is a file", "the original checkpoint"),
    "GGUF folder": (named("teacher", "model-q4.gguf"), "llama.cpp (GGUF)", "the original checkpoint"),
    "ONNX alone": (teacher(exported), "holds a model exported as ONNX", "the original checkpoint"),
    "ONNX alone, student": (student(exported), "holds a model exported as ONNX", "the original checkpoint"),
    "a shard missing": (teacher(sharded, name="qwen3"), "model-00002-of-00002.safetensors: does not exist", "again"),
    "quantised": (teacher(config(quantization_config=QUANTISED)), "quantised (bitsandbytes)", "that it was made of"),
    "quantised student": (student(config(quantization_config=QUANTISED)), "quantised (bitsandbytes)", "Name the"),
    "an adapter that is not merged": (student(with_adapter), "adapter_config.json: the model has", "merge_and_unload"),
    "sparse": (teacher(of_family("SparseEncoder")), "a SparseEncoder, which gives one weight per token", "Name a"),
    "late interaction": (teacher(of_family("MultiVectorEncoder")), "gives one vector per token", "Name a model"),
    "PyLate": (teacher(module(1, "pylate.models.Dense.Dense")), "gives one vector per token", "Name a model"),
    "reranker": (teacher(reranker), "a CrossEncoder, which gives one score per pair", "`pair_scores`"),
    "words": (teacher(module(0, "sentence_transformers.models.WordEmbeddings")), "reads words, not tokens", "Name"),
    "router": (teacher(module(1, "sentence_transformers.models.Router")), "through different modules", "Name a model"),
    "router, student": (
        student(module(1, "sentence_transformers.models.Router")),
        "through different modules",
        "Name a model",
    ),
    "pictures": (teacher(pictures), "it is a model for pictures or sound", "Name a model that encodes texts"),
    "padding before positions": (
        only_teacher(padded_on_the_left, name="gpt2"),
        "depend on padding",
        "{padding_side: right}",
    ),
    "a teacher's own modules": (only_teacher(recurrent), "does not compute a few texts", "use another teacher"),
    "the base model's own modules": (student(recurrent), "KeyError: 'sentence_lengths'", "without modules.json"),
    "weights alone": (named("student", "model.safetensors"), "weights without a configuration", "Restore config.json"),
}
"""By fault: what makes it, a part of what has to be said of it, and a part of the remedy."""
VALID: dict[str, tuple[Change, str]] = {
    # Tensors in a pickle are read without running any of it.
    "an older checkpoint": (student(as_pickle), "The student was not rehearsed"),
    # Its encoder is one as any other; its authors' pooling and heads are not the student's.
    "the encoder of a reranker": (student(reranker), "The student was not rehearsed"),
    "the encoder of a sparse model": (student(of_family("SparseEncoder")), "The student was not rehearsed"),
    "a model of the hub without a network": (
        lambda raw, _published, _parent: raw["teachers"].append(
            {"name": "own", "kind": "static", "licence": "MIT", "model": "org/table", "revision": "main"}
        ),
        "teacher 'own': org/table at 'main', a name that can be moved; its own code is not run; it is not in the "
        "cache; a run would download it",
    ),
}
"""What is taken, and a part of what is said of it."""


def recipe_of(published: Published, folder: Path) -> dict[str, Any]:
    source = {"name": "mine", "kind": "text", "path": str(folder / "a.txt"), "unit": "line", "licence": "CC0-1.0"}
    stage = {"train_layers": "all", "full_head": {"cosine": 1}, "batch_size": 4, "steps": 1, "learning_rate": 1e-4}
    return {
        "description": "A recipe to change.",
        "corpus": {"sources": [source], "dev": 0.2, "test": 0.2},
        "teachers": [{"name": "lsa", "kind": "lsa", "dim": 24, "licence": "MIT"}],
        "student": {
            "model": str(published("bert")), "max_length": 32, "matryoshka_dims": [16], "prompts": {"q": "Query: "},
        },
        "stages": [stage],
        "evaluation": {"prompts": {"query": "q"}},
        "release": {"dimension": 24, "licence": "MIT", "onnx": False},
    }  # fmt: skip


@pytest.fixture(scope="module")
def validated(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What `stella validate` makes of each recipe."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "a.txt").write_text("\n".join(f"A sentence about {i} and its square {i * i}." for i in range(40)))
    places = {}
    for number, (name, change) in enumerate({name: case[0] for name, case in {**WRONG, **VALID}.items()}.items()):
        raw = recipe_of(published, folder)
        change(raw, published, folder)
        kind = "valid" if name in VALID else "wrong"
        places[name] = folder / f"{kind}_{number}.yaml"
        places[name].write_text(yaml.safe_dump({"name": f"{kind}_{number}", **raw}))
    environment = {**os.environ, "STELLA_HOME": str(folder / "home"), "COLUMNS": "1000", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", VALIDATE, *map(str, places.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (folder / "home" / "artefacts").exists()
    return lambda name: json.loads(places[name].with_suffix(".json").read_text())


@pytest.mark.parametrize("fault", WRONG)
def test_a_model_that_cannot_be_used_is_refused_with_the_reason_and_a_remedy(fault: str, validated: Any):
    _, said, remedy = WRONG[fault]
    found = validated(fault)
    assert (found["code"], found["seconds"] < 60) == (2, True), found
    assert said in found["said"]
    assert remedy in found["said"]


@pytest.mark.parametrize("case", VALID)
def test_a_model_that_can_be_used_is_taken(case: str, validated: Any):
    found = validated(case)
    assert found["code"] == 0, found
    assert VALID[case][1] in found["said"]
