"""The student: a transformers encoder, pooling, and a head a dimension.

Folders are in the classic SentenceTransformers layout of the published Stella models, which every release and the
servers read: `modules.json` names the Transformer, `1_Pooling`, one `2_Dense_<dim>` and the normalisation; the others
lie beside it. With the last one people get the unit vectors that were trained and scored, whatever similarity they use.

Shapes: B texts, H hidden dimensions of the encoder, D dimensions of a head.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn.functional import normalize

from stella_assets.core.batching import padded_widths, token_budget_batches
from stella_assets.core.devices import autocast, best_device, resolve_dtype
from stella_assets.core.manifest import digest
from stella_assets.core.models import load_sentence_transformer, place
from stella_assets.recipe import Student as StudentSpec
from stella_assets.students.heads import Head, saved_dims
from stella_assets.training.tokens import tokenise

POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}


INCIDENTAL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "_attn_implementation"}
"""Keys of a configuration that no vector depends on."""
PROBE = "Two words,  CamelCase: naïve café, 3.14 + x_1 -> 東京!"
"""A text whose tokens tell tokenizers of one vocabulary apart."""


class StudentError(ValueError):
    """A student that cannot be made as the recipe says."""


class Student(nn.Module):
    """An encoder with heads. Dropout is off throughout: the targets are fixed, and runs are repeatable to the bit.

    A short dimension without a head of its own is the first part of the largest head's.
    """

    def __init__(self, backbone: SentenceTransformer, pooling: str, heads: Sequence[Head], dims: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleDict({str(head.dim): head for head in heads})
        self.dims = tuple(sorted({*dims, *(head.dim for head in heads)}, reverse=True))
        self.dtype = resolve_dtype("auto")
        self._takes_vectors = "inputs_embeds" in inspect.signature(self.transformer.forward).parameters
        self.to(best_device()).eval()

    @classmethod
    def initialise(cls, spec: StudentSpec, teacher_dim: int | None, seed: int, weights: Path | None = None) -> Student:
        """The student before training: the base model with the layers that the recipe keeps, and fresh heads.

        Args:
            spec: The recipe's student.
            teacher_dim: Dimensions of the teacher head; without them there are no heads at all.
            seed: Of the heads.
            weights: A student that was saved; its encoder is taken instead of the base model's.

        Raises:
            StudentError: The recipe keeps a layer that the base model does not have.
        """
        name, arguments = place(spec)
        if weights is not None:
            name, arguments = str(weights), {"local_files_only": True, "trust_remote_code": spec.trust_remote_code}
        base = load_sentence_transformer(name, **arguments)
        transformer: Any = base[0]
        if spec.keep_layers is not None and weights is None:
            keep_layers(transformer.auto_model, spec)
        hidden = transformer.auto_model.config.hidden_size
        backbone = SentenceTransformer(modules=[transformer, Pooling(hidden, spec.pooling)], device="cpu")
        backbone.max_seq_length = spec.max_length
        if teacher_dim is None:
            return cls(backbone, spec.pooling, [], [])
        dims = [teacher_dim, *(dim for dim in spec.matryoshka_dims if dim != teacher_dim)]
        own = dims if spec.matryoshka_heads == "independent" else dims[:1]
        generator = torch.Generator().manual_seed(seed)
        heads = [Head(hidden, dim, spec.head_hidden).initialise(generator) for dim in own]
        return cls(backbone, spec.pooling, heads, dims)

    @classmethod
    def load(cls, folder: Path, spec: StudentSpec) -> Student:
        """Read a student from the folder that `save` wrote."""
        base = load_sentence_transformer(str(folder), local_files_only=True, trust_remote_code=spec.trust_remote_code)
        dims = saved_dims(folder)
        own = dims if spec.matryoshka_heads == "independent" else dims[:1]
        backbone = SentenceTransformer(modules=[base[0], base[1]], device="cpu")
        return cls(backbone, spec.pooling, [Head.load(folder, dim) for dim in own], dims)

    def save(self, folder: Path, default_dim: int, prompts: Mapping[str, str]) -> None:
        """Write the student in the classic layout, with `default_dim` the head that `modules.json` names."""
        self.transformer.save_pretrained(folder)
        self.backbone.tokenizer.save_pretrained(folder)
        saved = {dim: self.head(dim).first(dim).save(folder) for dim in self.dims}
        dense = saved[default_dim]
        types = {"": "Transformer", "1_Pooling": "Pooling", **dict.fromkeys(dense, "Dense")}
        types[f"{len(types)}_Normalize"] = "Normalize"
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

    def forward(
        self, inputs: Sequence[Mapping[str, Any]] | Tensor, dims: Sequence[int], part: Tensor | None = None
    ) -> dict[int, Tensor]:
        """Unit vectors of some heads, by dimension.

        Args:
            inputs: Features of texts, a group of like length at a time; or pooled states that are known already.
            dims: Of the heads.
            part: The dimensions of the teacher head to give, where it is not all of them.
        """
        pooled_BH = inputs if isinstance(inputs, Tensor) else torch.cat([self.pool(g) for g in self._embedded(inputs)])
        return {dim: self.project(pooled_BH, dim, part if dim == self.dims[0] else None) for dim in dims}

    def _embedded(self, groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Look up the tokens of all groups at once where their table trains: a lookup's gradient is as big as it."""
        table = self.transformer.get_input_embeddings()
        trains = table.weight.requires_grad and torch.is_grad_enabled()
        if len(groups) < 2 or not trains or not self._takes_vectors:
            return groups
        ids = [group["input_ids"].to(self.device) for group in groups]
        vectors = table(torch.cat([part.flatten() for part in ids])).split([part.numel() for part in ids])
        return [
            {key: value for key, value in group.items() if key != "input_ids"}
            | {"inputs_embeds": part.view(*shape.shape, -1)}
            for group, part, shape in zip(groups, vectors, ids, strict=True)
        ]

    def pool(self, features: Mapping[str, Any]) -> Tensor:
        """Pooled states `[B, H]` float32 of the encoder."""
        on_device = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        with autocast(self.dtype):
            return self.backbone(on_device)["sentence_embedding"].float()

    def project(self, pooled_BH: Tensor, dim: int, part: Tensor | None = None) -> Tensor:
        """Unit vectors `[B, dim]` float32 of one head, or `[B, len(part)]` of some of its dimensions."""
        vectors_BD = self.head(dim)(pooled_BH, dim)
        return normalize(vectors_BD if part is None else vectors_BD[:, part], dim=1)

    def head(self, dim: int) -> Head:
        """The head that gives vectors of `dim` dimensions."""
        name = str(dim) if str(dim) in self.heads else str(self.dims[0])
        return cast("Head", self.heads[name])

    def encoder_digest(self) -> str:
        """Names all that a pooled state depends on: weights, tokenizer, pooling, length and dtype."""
        tokenizer = self.backbone.tokenizer
        about = {
            "architecture": type(self.transformer).__name__,
            "config": {k: v for k, v in self.transformer.config.to_dict().items() if k not in INCIDENTAL},
            "vocabulary": tokenizer.get_vocab(),
            "probe": tokenizer(PROBE)["input_ids"],
            "pooling": self.pooling,
            "max_length": self.backbone.max_seq_length,
            "dtype": self.dtype,
            "weights": _tensor_digest(self.backbone.state_dict()),
        }
        return digest(about)[:16]

    def head_digest(self, dim: int) -> str:
        """Names the weights that give vectors of `dim` dimensions."""
        return _tensor_digest(self.head(dim).first(dim).state_dict())

    def encode_pooled(self, texts: Sequence[str], max_batch_tokens: int = 4096) -> np.ndarray:
        """Pooled states `[len(texts), H]` float32 in token-budgeted batches, in the order of `texts`."""
        limit = int(self.backbone.max_seq_length or 512)
        tokens = tokenise(self.backbone.tokenizer, texts, limit)
        widths = padded_widths(tokens.lengths, limit)
        pooled = np.empty((len(texts), self.hidden), dtype=np.float32)
        with torch.inference_mode():
            for batch in token_budget_batches(widths, max_batch_tokens):
                pooled[batch] = self.pool(tokens.batch(batch, int(widths[batch[0]]))).cpu().numpy()
        return pooled

    def encode(self, texts: Sequence[str], dim: int) -> np.ndarray:
        """Unit vectors `[len(texts), dim]` float32 of one head."""
        pooled_BH = torch.from_numpy(self.encode_pooled(texts)).to(self.device)
        with torch.inference_mode():
            return self.project(pooled_BH, dim).cpu().numpy()

    def start_matryoshka_heads(self, target_SD: Tensor) -> None:
        """Start each short head as the teacher head seen along the principal directions of a sample of targets."""
        directions_DD = torch.linalg.svd(target_SD, full_matrices=False).Vh
        teacher = self.head(self.dims[0])
        for dim in self.dims[1:]:
            if self.head(dim) is not teacher:
                self.head(dim).start_along(teacher, directions_DD)

    def train_only(self, layers: int | str, dims: Iterable[int], *, embeddings: bool = True) -> None:
        """Let the last `layers` encoder layers (or `all` parameters of the encoder) and some heads train.

        Args:
            layers: How many.
            dims: Of the heads.
            embeddings: Whether token embeddings train when all layers do.

        Raises:
            StudentError: The encoder has fewer layers.
        """
        self.requires_grad_(False)
        for dim in dims:
            self.head(dim).requires_grad_(True)
        if layers == "all":
            self.backbone.requires_grad_(True)
            if not embeddings:
                self.transformer.get_input_embeddings().requires_grad_(False)
        elif int(layers) > 0:
            stack = encoder_layers(self.transformer)
            if int(layers) > len(stack):
                raise StudentError(
                    f"train_layers {layers}: the student has {len(stack)} layers. Lower it, or say `all`."
                )
            for layer in list(stack)[-int(layers) :]:
                layer.requires_grad_(True)

    def prepare_training(self) -> None:
        """Use what is fast backward too: on a CPU the fused attention has a slower gradient than the plain one."""
        if self.device.type == "cpu" and self.transformer.config._attn_implementation == "sdpa":
            self.transformer.set_attn_implementation("eager")

    @property
    def _no_split_modules(self) -> Any:
        """What FSDP gathers together, by accelerate's convention: the encoder says which of its modules are layers."""
        return self.transformer._no_split_modules

    def checkpoint_activations(self) -> None:
        """Keep only the input of each encoder layer for the backward pass, and work out the rest again."""
        self.transformer.gradient_checkpointing_enable({"use_reentrant": False})
        for layer in encoder_layers(self.transformer):
            # transformers asks the layer whether it trains. Its dropouts are modules of their own, and stay off.
            layer.training = True


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers of a transformers model."""
    wanted = model.config.num_hidden_layers  # type: ignore[union-attr]
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == wanted]
    if not stacks:
        raise StudentError(f"{type(model).__name__}: found no stack of {wanted} layers to drop or to train.")
    return stacks[0]


def keep_layers(model: nn.Module, spec: StudentSpec) -> None:
    """Drop every encoder layer that the recipe does not keep."""
    config: Any = model.config
    stack = encoder_layers(model)
    kept = spec.kept_layers(len(stack))
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


def _tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:32]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
