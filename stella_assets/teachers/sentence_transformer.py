"""A SentenceTransformers model as a teacher.

Shapes: N texts, B texts of a batch, W tokens of a padded row, D dimensions of a vector.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from stella_assets.core.batching import TokenisedTexts, padded_widths, padding_of, token_budget_batches
from stella_assets.core.devices import best_device, resolve_dtype
from stella_assets.core.manifest import digest
from stella_assets.core.models import load_sentence_transformer, model_digest, place
from stella_assets.core.progress import progress_bar
from stella_assets.recipe import SentenceTransformersTeacher

AS_PROMPT = "prompt:"
"""What a role begins with that is no `query` or `document` but a prompt itself."""
TOKENISED_AT_ONCE = 2048
UNPADDED = {"text": {"padding": False, "return_attention_mask": False}, "common": {"return_tensors": None}}


class SentenceTransformerTeacher:
    """Encodes in token-budgeted batches, longest texts first; the model is loaded at the first text.

    The encoder computes in the recipe's dtype; pooling, Dense layers and the norm are always float32.
    """

    def __init__(self, spec: SentenceTransformersTeacher) -> None:
        self.spec = spec
        self.dtype = resolve_dtype(spec.dtype)

    @cached_property
    def model(self) -> Any:
        """The loaded `SentenceTransformer`."""
        import torch

        name, arguments = place(self.spec)
        # Without a dtype transformers takes the checkpoint's. Cast while loading: `.to()` would also round the buffers
        # of rotary positions, which models keep in float32.
        dtype = {"dtype": getattr(torch, self.dtype)}
        model = load_sentence_transformer(name, str(best_device()), model_kwargs=dtype, **arguments)
        if self.spec.dense_folder:
            _replace_dense(model, name, self.spec.dense_folder, arguments)
        first, *others = model
        first.register_forward_hook(_to_float32)
        for module in others:
            module.float()
        limit = model.max_seq_length
        model.max_seq_length = min(self.spec.max_length, limit) if limit else self.spec.max_length
        return model.eval()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.model.get_embedding_dimension())

    def describe(self, role: str) -> dict[str, Any]:
        """Everything that a vector depends on beside the text, as plain values; `weights` is a digest."""
        return {
            "kind": self.spec.kind,
            "model": self.spec.model,
            "revision": self.spec.revision if self.spec.on_hub else None,
            "weights": model_digest(self.spec),
            "prompt": self._prompt(role),
            "pooling": _pooling_mode(self.model),
            "dense_folder": self.spec.dense_folder,
            "max_length": self.spec.max_length,
            "dim": self.dim,
            "dtype": self.dtype,
            "engine": "sentence-transformers",
            "normalised": True,
        }

    def fingerprint(self, role: str) -> str:
        """Names what `describe` says but for the model's place: the same weights elsewhere are the same teacher."""
        return digest({key: value for key, value in self.describe(role).items() if key != "model"})[:16]

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        """Unit-norm vectors `[N, D]` float32, in the order of `texts`."""
        import torch

        tokens = self._tokenise(texts, self._prompt(role))
        widths_N = padded_widths(tokens.lengths, self.model.max_seq_length)
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        with torch.inference_mode(), progress_bar(len(texts), self.spec.name, "texts") as bar:
            for batch in token_budget_batches(widths_N, self.spec.max_batch_tokens):
                features = tokens.batch(batch, int(widths_N[batch[0]]))
                on_device = {k: v.to(self.model.device) if torch.is_tensor(v) else v for k, v in features.items()}
                encoded_BD = self.model(on_device)["sentence_embedding"]
                vectors_ND[batch] = torch.nn.functional.normalize(encoded_BD.float(), dim=1).cpu().numpy()
                bar.update(len(batch))
        return vectors_ND

    def parameters(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in self.model.parameters())

    def _prompt(self, role: str) -> str:
        """The recipe's prompt of the role, else the model's own default, as `SentenceTransformer.encode` takes it."""
        if role.startswith(AS_PROMPT):
            return role.removeprefix(AS_PROMPT)
        own = self.spec.prompts.get(role)  # type: ignore[call-overload]
        return own if own is not None else self.model.prompts.get(self.model.default_prompt_name) or ""

    def _tokenise(self, texts: list[str], prompt: str) -> TokenisedTexts:
        """Every text once, truncated; in parts, as Python lists of tokens are some ten times larger than arrays."""
        columns: dict[str, list[np.ndarray]] = defaultdict(list, input_ids=[])
        shared: dict[str, Any] = {}
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            part = texts[start : start + TOKENISED_AT_ONCE]
            features = self.model.preprocess(part, prompt=prompt or None, processing_kwargs=UNPADDED)
            mask = features.pop("attention_mask", None)
            for name, value in features.items():
                if isinstance(value, list) or np.ndim(value) == 2:
                    columns[name] += _unpadded(value, mask)
                else:
                    shared[name] = value
        if len(columns["input_ids"]) != len(texts):
            raise ValueError(f"{self.spec.model}: {type(self.model[0]).__name__} makes no row of tokens for each text.")
        tokenizer = self.model.tokenizer
        return TokenisedTexts(columns, padding_of(tokenizer), shared, left=tokenizer.padding_side == "left")


def _unpadded(rows: Any, mask: Any) -> list[np.ndarray]:
    """Rows `[tokens]` int32; older models' own tokenising pads all the same, and gives tensors `[N, W]`."""
    if isinstance(rows, list):
        return [np.asarray(row, dtype=np.int32) for row in rows]
    return [row[kept].numpy().astype(np.int32) for row, kept in zip(rows, mask.bool(), strict=True)]


def _to_float32(_encoder: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    """What the encoder hands on, in float32 for the modules after it."""
    import torch

    return {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in features.items()}


def _pooling_mode(model: Any) -> str:
    """Mode or modes of the model's Pooling module, or `none`."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    for module in model:
        if isinstance(module, Pooling):
            return module.pooling_mode if isinstance(module.pooling_mode, str) else "+".join(module.pooling_mode)
    return "none"


def _replace_dense(model: Any, name: str, folder: str, arguments: dict[str, Any]) -> None:
    """Use another of the Dense layers that Stella models keep side by side, one a dimension."""
    from sentence_transformers.sentence_transformer.modules import Dense

    places = [place for place, module in enumerate(model) if isinstance(module, Dense)]
    if not places:
        raise ValueError(f"{name}: dense_folder {folder!r} is asked for, but the model has no Dense layer. Remove it.")
    try:
        model[places[-1]] = Dense.load(name, subfolder=folder, **arguments).to(model.device)
    except (OSError, TypeError, ValueError) as error:  # a folder without a config gives a TypeError
        raise ValueError(f"{name}: there is no Dense layer in {folder!r}. Correct `dense_folder`. ({error})") from None
