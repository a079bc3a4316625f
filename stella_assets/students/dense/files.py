"""Making, loading and saving students of the kind `dense`.

Folders are in the classic SentenceTransformers layout of the published Stella models, which every release and the
servers read: `modules.json` names the Transformer, `1_Pooling`, one `2_Dense_<dim>` and the normalisation; the other
heads have folders of their own next to it. With the normalisation people get the unit vectors that were trained and
scored, whatever similarity they use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from stella_assets.core.models import load_sentence_transformer, without_cycle
from stella_assets.students.base import FULL
from stella_assets.students.dense.heads import Head, saved_dimensions
from stella_assets.students.dense.layers import keep_layers
from stella_assets.students.dense.model import DenseStudent
from stella_assets.students.dense.own_code import save_encoder
from stella_assets.students.dense.settings import DenseConfig, head_dimensions
from stella_assets.students.tokenise import pad_on_the_right

if TYPE_CHECKING:
    from stella_assets.core.devices import Compute

HEADS_FILE = "heads.json"
"""Which folder is the full head, and which of its rows were taught."""
POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}


def initialise_student(
    config: DenseConfig, full_dimension: int | None, seed: int, compute: Compute, weights: Path | None = None
) -> DenseStudent:
    """The student before training; see `StudentConfig.initialise`.

    Args:
        config: Settings of the student.
        full_dimension: Dimensions of the head `full`; None for no heads.
        seed: Of the heads.
        compute: Where it computes.
        weights: Folder of a saved student to take the encoder from.

    Returns:
        The base model with the kept layers, and new heads.

    Raises:
        StudentError: A prefix head is above `full_dimension`, or a layer to keep does not exist.
    """
    # In float32, whatever the checkpoint's format is: in bfloat16 most steps are too small to change a weight.
    transformer: Any = load_sentence_transformer(config, saved=weights)[0]
    # A saved encoder has lost its layers already; to choose among the rest would prune it twice.
    if config.keep_layers is not None and weights is None:
        keep_layers(transformer.auto_model, config.kept_layers)
    pad_on_the_right(transformer.tokenizer, config.model)
    hidden = transformer.auto_model.config.hidden_size
    # On the CPU first: `DenseStudent` moves encoder and heads together, to the device that `compute` names.
    # Pooling and length are the recipe's, whatever the base model was published with.
    modules = [transformer, Pooling(hidden, config.pooling)]
    backbone = without_cycle(SentenceTransformer(modules=modules, device="cpu"))
    backbone.max_seq_length = config.max_length
    if full_dimension is None:
        return DenseStudent(backbone, config.pooling, {}, {}, compute)
    config.require_prefixes(full_dimension)
    dimensions = head_dimensions(full_dimension, config.matryoshka_dims)
    # One generator for all heads, in the order of the recipe: this order decides their weights.
    names = [FULL, *(str(dim) for dim in config.matryoshka_dims if dim != full_dimension)]
    generator = torch.Generator().manual_seed(seed)
    heads = {
        name: Head(hidden, dimensions[name], config.head_hidden).initialise(generator)
        for name in (names if config.matryoshka_heads == "independent" else names[:1])
    }
    return DenseStudent(backbone, config.pooling, heads, dimensions, compute)


def load_student(config: DenseConfig, folder: Path, compute: Compute) -> DenseStudent:
    """Read a student from the folder that `save_student` wrote.

    Args:
        config: The settings that it was made with.
        folder: In the layout of SentenceTransformers.
        compute: Where it computes.
    """
    base = load_sentence_transformer(config, saved=folder)
    pad_on_the_right(base.tokenizer, config.model)
    saved = saved_dimensions(folder)
    record = _read_heads(folder)
    # Folders without a record are of a time when no Matryoshka head was above the full one.
    dimensions = head_dimensions(record["full"] if record else saved[0], saved)
    names = list(dimensions) if config.matryoshka_heads == "independent" else [FULL]
    heads = {name: Head.load(folder, dimensions[name]) for name in names}
    # Without the Dense of `modules.json`, which is one head of several: heads are read from their own folders.
    backbone = without_cycle(SentenceTransformer(modules=[base[0], base[1]], device="cpu"))
    student = DenseStudent(backbone, config.pooling, heads, dimensions, compute)
    if record and record["taught"] is not None:
        student.taught = torch.cat([torch.arange(start, end) for start, end in record["taught"]])
    return student


def save_student(student: DenseStudent, folder: Path, default_head: str, prompts: Mapping[str, str]) -> None:
    """Write a student.

    Args:
        student: With its heads.
        folder: Created where it does not exist.
        default_head: The head that `modules.json` names: what people get who load the folder.
        prompts: By name; people choose one with `prompt_name`.
    """
    save_encoder(student.transformer, folder)
    student.backbone.tokenizer.save_pretrained(folder)
    # A prefix head is written out as a head of its own, so that every dimension can be served alike.
    # All rows, also those that no stage has taught yet: the next stage continues from this folder.
    saved = {name: student.head(name).cut(slice(rows)).save(folder) for name, rows in student.rows.items()}
    _write_json(folder / HEADS_FILE, {"full": student.rows[FULL], "taught": _spans(student.taught)})
    dense = saved[default_head]
    # The keys are folders: "" is the root, where the encoder is, as transformers loads it from there, too.
    types = {"": "Transformer", "1_Pooling": "Pooling", **dict.fromkeys(dense, "Dense")}
    types[f"{len(types)}_Normalize"] = "Normalize"
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(types.items())
    ]
    _write_json(folder / "modules.json", modules)
    # The files are written here, not by `SentenceTransformer.save`, whose layout changes with its version.
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": student.backbone.max_seq_length, "do_lower_case": False},
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    # Older servers read one flag per mode and take a missing one for its default, which is true for the mean.
    modes = {key: student.pooling == name for name, key in POOLING_KEYS.items()}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": student.hidden, **modes})


def _spans(positions: Tensor | None) -> list[list[int]] | None:
    """Ascending positions as ranges `[start, end)`; None for all."""
    if positions is None:
        return None
    spans: list[list[int]] = []
    for position in positions.tolist():
        if spans and spans[-1][1] == position:
            spans[-1][1] += 1
        else:
            spans.append([position, position + 1])
    return spans


def _read_heads(folder: Path) -> dict[str, Any] | None:
    path = folder / HEADS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
