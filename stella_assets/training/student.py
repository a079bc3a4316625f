"""The student: a transformers encoder, pooling, and one linear head a dimension.

Folders are in the classic SentenceTransformers layout of the published Stella models, which every release and the
servers read: `modules.json` names the Transformer, `1_Pooling`, one `2_Dense_<dim>` and `3_Normalize`; the others lie
beside it. With the last one people get the unit vectors that were trained and scored, whatever similarity they use.

Shapes: B texts, H hidden dimensions of the encoder, D dimensions of a head.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn.functional import normalize

from stella_assets.models import load_sentence_transformer, place
from stella_assets.recipe import Student as StudentSpec
from stella_assets.teachers.batching import token_budget_batches
from stella_assets.teachers.device import autocast, best_device, resolve_dtype

HEAD_FOLDER = "2_Dense_"
POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}


class StudentError(ValueError):
    """A student that cannot be made as the recipe says."""


class Student(nn.Module):
    """An encoder with heads. Dropout is off throughout: the targets are fixed, and runs are repeatable to the bit."""

    def __init__(self, backbone: SentenceTransformer, pooling: str, heads: Mapping[int, nn.Linear]) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleDict({str(dim): head for dim, head in heads.items()})
        self.dtype = resolve_dtype("auto")
        self.to(best_device()).eval()

    @classmethod
    def initialise(cls, spec: StudentSpec, head_dims: Sequence[int], seed: int) -> Student:
        """The student before training: the base model with the layers that the recipe keeps, and fresh heads.

        Raises:
            StudentError: The recipe keeps a layer that the base model does not have.
        """
        name, arguments = place(spec)
        base = load_sentence_transformer(name, **arguments)
        transformer: Any = base[0]
        if spec.keep_layers is not None:
            keep_layers(transformer.auto_model, spec.keep_layers)
        hidden = transformer.auto_model.config.hidden_size
        backbone = SentenceTransformer(modules=[transformer, Pooling(hidden, spec.pooling)], device="cpu")
        backbone.max_seq_length = spec.max_length
        generator = torch.Generator().manual_seed(seed)
        heads = {dim: _fresh_head(hidden, dim, generator) for dim in head_dims}
        return cls(backbone, spec.pooling, heads)

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> Student:
        """Read a student with all its heads; the code is only that which the recipe trusts by name and commit."""
        base = load_sentence_transformer(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
        pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
        mode = next(name for name, key in POOLING_KEYS.items() if pooling.get(key))
        heads = {}
        for path in sorted(folder.glob(f"{HEAD_FOLDER}*")):
            config = json.loads((path / "config.json").read_text())
            head = nn.Linear(config["in_features"], config["out_features"])
            head.load_state_dict(
                {k.removeprefix("linear."): v for k, v in load_file(path / "model.safetensors").items()}
            )
            heads[config["out_features"]] = head
        backbone = SentenceTransformer(modules=[base[0], base[1]], device="cpu")
        return cls(backbone, mode, heads)

    def save(self, folder: Path, default_dim: int, prompts: Mapping[str, str]) -> None:
        """Write the student in the classic layout, with `default_dim` the head that `modules.json` names."""
        self.transformer.save_pretrained(folder)
        self.backbone.tokenizer.save_pretrained(folder)
        types = {
            "": "Transformer",
            "1_Pooling": "Pooling",
            f"{HEAD_FOLDER}{default_dim}": "Dense",
            "3_Normalize": "Normalize",
        }
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(types.items())
        ]
        _write_json(folder / "modules.json", modules)
        _write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": self.backbone.max_seq_length, "do_lower_case": False},
        )
        _write_json(
            folder / "config_sentence_transformers.json",
            {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
        )
        modes = {key: self.pooling == name for name, key in POOLING_KEYS.items()}
        _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": self.hidden, **modes})
        for dim in map(int, self.heads):
            _save_head(folder / f"{HEAD_FOLDER}{dim}", self._head(dim))

    @property
    def transformer(self) -> Any:
        """The transformers model."""
        return self.backbone[0].auto_model

    @property
    def hidden(self) -> int:
        """Dimensions of the pooled state."""
        return int(self.transformer.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Pooled states `[B, H]` float32 of the encoder."""
        features = self.backbone.preprocess(list(texts))
        features = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        with autocast(self.dtype):
            return self.backbone(features)["sentence_embedding"].float()

    def project(self, pooled_BH: Tensor, dim: int) -> Tensor:
        """Unit vectors `[B, D]` float32 of one head."""
        return normalize(self._head(dim)(pooled_BH), dim=1)

    def _head(self, dim: int) -> nn.Linear:
        return cast("nn.Linear", self.heads[str(dim)])

    def encode_pooled(self, texts: Sequence[str], max_batch_tokens: int = 4096) -> np.ndarray:
        """Pooled states `[len(texts), H]` float32 in token-budgeted batches, in the order of `texts`."""
        tokens = self.backbone.tokenizer(list(texts), truncation=True, max_length=self.backbone.max_seq_length)
        lengths = [len(ids) for ids in tokens["input_ids"]]
        pooled = np.empty((len(texts), self.hidden), dtype=np.float32)
        with torch.inference_mode():
            for batch in token_budget_batches(lengths, max_batch_tokens):
                pooled[batch] = self.pool([texts[i] for i in batch]).cpu().numpy()
        return pooled

    @torch.no_grad()
    def start_short_heads(self, teacher_dim: int, target_SD: Tensor) -> None:
        """Start each short head as the teacher head seen along the targets' leading principal directions.

        Of all projections to d dimensions this one keeps the targets' inner products best, so a short head begins near
        its goal and does not pull the encoder about. (How the published heads began is not known.)

        Args:
            teacher_dim: Dimensions of the teacher head, D.
            target_SD: A sample of target vectors.
        """
        directions_DD = torch.linalg.svd(target_SD, full_matrices=False).Vh.to(self.device)
        teacher = self._head(teacher_dim)
        for dim in map(int, self.heads):
            if dim != teacher_dim:
                head, top_dD = self._head(dim), directions_DD[:dim]
                head.weight[: len(top_dD)] = top_dD @ teacher.weight
                head.bias[: len(top_dD)] = top_dD @ teacher.bias

    def train_only(self, layers: int | str, heads: Iterable[int]) -> None:
        """Let the last `layers` encoder layers (or `all` parameters of the encoder) and the named heads train.

        Raises:
            StudentError: The encoder has fewer layers.
        """
        self.requires_grad_(False)
        for dim in heads:
            self.heads[str(dim)].requires_grad_(True)
        if layers == "all":
            self.backbone.requires_grad_(True)
        elif int(layers) > 0:
            stack = encoder_layers(self.transformer)
            if int(layers) > len(stack):
                raise StudentError(
                    f"train_layers {layers}: the student has {len(stack)} layers. Lower it, or say `all`."
                )
            for layer in list(stack)[-int(layers) :]:
                layer.requires_grad_(True)


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers of a transformers model."""
    wanted = model.config.num_hidden_layers  # type: ignore[union-attr]
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == wanted]
    if not stacks:
        raise StudentError(f"{type(model).__name__}: found no stack of {wanted} layers to drop or to train.")
    return stacks[0]


def keep_layers(model: nn.Module, kept: Sequence[int]) -> None:
    """Drop every encoder layer but the named ones, counting from 0."""
    config: Any = model.config
    stack = encoder_layers(model)
    if kept[-1] >= len(stack):
        raise StudentError(f"keep_layers {list(kept)}: the base model has layers 0 to {len(stack) - 1}. Lower them.")
    layers = [stack[i] for i in kept]
    del stack[:]
    for position, layer in enumerate(layers):
        stack.append(layer)
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position  # type: ignore[assignment]
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]


def _fresh_head(hidden: int, dim: int, generator: torch.Generator) -> nn.Linear:
    """Weights of unit-variance outputs, zero bias."""
    head = nn.Linear(hidden, dim)
    with torch.no_grad():
        head.weight.copy_(torch.randn(dim, hidden, generator=generator) / hidden**0.5)
        head.bias.zero_()
    return head


def _save_head(folder: Path, head: nn.Linear) -> None:
    """A head as SentenceTransformers' Dense."""
    config = {
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write_json(folder / "config.json", config)
    weights = {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
