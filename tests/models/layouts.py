"""Folders of sentence-transformers of every age: what they hold around the encoder, and where."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.models.registry import LAYOUTS, model

LEGACY = "sentence_transformers.models"
MODES = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
         "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}  # fmt: skip


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_modules(
    folder: Path,
    pooling: str,
    dim: int,
    *,
    prompts: Mapping[str, str] | None = None,
    dense: tuple[int, str, bool] | None = None,
    limit: int = 64,
) -> None:
    """What sentence-transformers 3 and 4 write around a transformers model: pooling, a Dense, the norm.

    Args:
        folder: Of the transformers model.
        pooling: A mode of `Pooling`.
        dim: Width of the transformers model.
        prompts: By name.
        dense: Width, activation (a class of `torch.nn`) and whether it has a bias.
        limit: Tokens of a text.
    """
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    write_module_list(folder, kinds)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    write_pooling(folder, pooling, dim)
    if dense:
        write_dense(folder / "2_Dense", dim, *dense)
    versions = {"__version__": {"sentence_transformers": "3.3.1", "transformers": "4.46.3", "pytorch": "2.5.1"}}
    own = {"prompts": dict(prompts or {}), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _write(folder / "config_sentence_transformers.json", {**versions, **own})


def write_module_list(folder: Path, kinds: Sequence[str], first: str = "", package: str = LEGACY) -> None:
    """`modules.json`; `first` is the folder of the transformers model."""
    paths = [first if not place else f"{place}_{kind}" for place, kind in enumerate(kinds)]
    _write(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": f"{package}.{kind}"}
            for place, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    for path in paths[1:]:  # a Normalize has an empty folder
        (folder / path).mkdir(exist_ok=True)


def write_pooling(folder: Path, pooling: str, dim: int, known: Sequence[str] = tuple(MODES)) -> None:
    """The old keys of a Pooling; `known` are the modes that its version had."""
    modes = {f"pooling_mode_{MODES[mode]}": mode == pooling for mode in known}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **modes, "include_prompt": True})


def write_dense(
    folder: Path, dim: int, width: int, activation: str = "Tanh", bias: bool = True, safe: bool = True, seed: int = 7
) -> None:
    """A Dense module, whose activation old and new versions name by its class."""
    names = {"Tanh": "torch.nn.modules.activation.Tanh", "Identity": "torch.nn.modules.linear.Identity"}
    config = {"in_features": dim, "out_features": width, "bias": bias, "activation_function": names[activation]}
    _write(folder / "config.json", config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {"linear.weight": torch.randn(width, dim, generator=generator) / dim**0.5}
    if bias:
        tensors["linear.bias"] = 0.3 * torch.randn(width, generator=generator)
    if safe:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, folder / "pytorch_model.bin")


def _bert(folder: Path) -> int:
    from tests.models.architectures import DIM, bert

    folder.mkdir(exist_ok=True)
    bert(folder)
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        path.rmdir()
    return DIM


def to_bin(folder: Path) -> None:
    """Weights as a pickle, with the buffer of positions that transformers wrote before 4.31."""
    tensors: dict[str, torch.Tensor] = dict(load_file(folder / "model.safetensors"))
    tensors["embeddings.position_ids"] = torch.arange(64).unsqueeze(0)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _old_tokenizer(folder: Path) -> None:
    """Before there were fast tokenizers: the vocabulary alone, and a configuration that names no class."""
    (folder / "tokenizer.json").unlink()
    _write(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 64})
    marks = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    _write(folder / "special_tokens_map.json", {**marks, "mask_token": "[MASK]"})


@model("layout_1", LAYOUTS)
def layout_1(folder: Path) -> None:
    """0.3 to 1.2: the encoder in `0_Transformer`, pickled weights, four modes of pooling, a version alone."""
    dim = _bert(folder / "0_Transformer")
    to_bin(folder / "0_Transformer")
    _old_tokenizer(folder / "0_Transformer")
    write_module_list(folder, ["Transformer", "Pooling"], first="0_Transformer")
    write_pooling(folder, "mean", dim, ["cls", "mean", "max", "mean_sqrt_len_tokens"])
    _write(folder / "config.json", {"__version__": "0.3.8"})


@model("layout_1_dense", LAYOUTS)
def layout_1_dense(folder: Path) -> None:
    """`distiluse-base-multilingual`: a Dense with Tanh in pickled weights."""
    layout_1(folder)
    write_module_list(folder, ["Transformer", "Pooling", "Dense"], first="0_Transformer")
    write_dense(folder / "2_Dense", 32, 24, "Tanh", safe=False)


@model("layout_2", LAYOUTS)
def layout_2(folder: Path) -> None:
    """2.0 to 2.2, e.g. `all-MiniLM-L6-v2` at first: the encoder at the top, pickled, and an empty `2_Normalize`."""
    dim = _bert(folder)
    to_bin(folder)
    write_module_list(folder, ["Transformer", "Pooling", "Normalize"])
    write_pooling(folder, "mean", dim, ["cls", "mean", "max", "mean_sqrt_len_tokens"])
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
    _write(folder / "config_sentence_transformers.json", {"__version__": versions})


@model("layout_2_bare", LAYOUTS)
def layout_2_bare(folder: Path) -> None:
    """A folder of that age without `config_sentence_transformers.json`, max pooling and a Dense with Identity."""
    layout_2(folder)
    (folder / "config_sentence_transformers.json").unlink()
    write_module_list(folder, ["Transformer", "Pooling", "Dense"])
    write_pooling(folder, "max", 32, ["cls", "mean", "max", "mean_sqrt_len_tokens"])
    write_dense(folder / "2_Dense", 32, 40, "Identity", safe=False)


@model("layout_3", LAYOUTS)
def layout_3(folder: Path) -> None:
    """3 and 4: safetensors, prompts, a prompt by default."""
    dim = _bert(folder)
    write_modules(folder, "cls", dim, prompts={"query": "Query: ", "passage": "Passage: "})
    path = folder / "config_sentence_transformers.json"
    _write(path, {**json.loads(path.read_text()), "default_prompt_name": "passage"})


@model("layout_5", LAYOUTS)
def layout_5(folder: Path) -> None:
    """5.0: `model_type`, prompts for queries and documents, a Dense in safetensors, two modes of pooling."""
    dim = _bert(folder)
    write_modules(folder, "mean", dim, prompts={"query": "search_query: ", "document": "search_document: "})
    write_module_list(folder, ["Transformer", "Pooling", "Dense", "Normalize"])
    pooling = {"word_embedding_dimension": dim, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    write_dense(folder / "2_Dense", 2 * dim, 24, "Tanh")
    path = folder / "config_sentence_transformers.json"
    _write(path, {**json.loads(path.read_text()), "model_type": "SentenceTransformer"})


@model("layout_6", LAYOUTS)
def layout_6(folder: Path) -> None:
    """6: as the library of today writes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    encoder = folder / "encoder"
    dim = _bert(encoder)
    torch.manual_seed(3)
    modules = [Transformer(str(encoder)), Pooling(dim, "mean"), Dense(dim, 24), Normalize()]
    SentenceTransformer(modules=modules, device="cpu", prompts={"query": "q: "}).save_pretrained(str(folder))
    for path in encoder.iterdir():
        path.unlink()
    encoder.rmdir()


@model("layout_6_truncated", LAYOUTS)
def layout_6_truncated(folder: Path) -> None:
    """6, of which the authors give the first dimensions alone."""
    layout_6(folder)
    path = folder / "config_sentence_transformers.json"
    _write(path, {**json.loads(path.read_text()), "truncate_dim": 16})
