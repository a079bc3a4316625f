"""A SentenceTransformers model as a teacher."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from stella_assets.manifest import digest
from stella_assets.models import load_sentence_transformer, model_digest, place
from stella_assets.progress import progress_bar
from stella_assets.recipe import SentenceTransformersTeacher
from stella_assets.teachers.batching import token_budget_batches
from stella_assets.teachers.device import autocast, best_device, resolve_dtype


class SentenceTransformerTeacher:
    """Encodes in token-budgeted batches, longest texts first; the model is loaded at the first text."""

    def __init__(self, spec: SentenceTransformersTeacher) -> None:
        self.spec = spec
        self.dtype = resolve_dtype(spec.dtype)

    @cached_property
    def model(self) -> Any:
        """The loaded `SentenceTransformer`."""
        name, arguments = place(self.spec)
        model = load_sentence_transformer(name, str(best_device()), **arguments)
        if self.spec.dense_folder:
            _replace_dense(model, name, self.spec.dense_folder, arguments)
        limit = model.max_seq_length
        model.max_seq_length = min(self.spec.max_length, limit) if limit else self.spec.max_length
        return model.eval()

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.model.get_embedding_dimension())

    def fingerprint(self, role: str) -> str:
        """Names everything that a vector depends on beside the text."""
        return digest(
            {
                "kind": self.spec.kind,
                "model": model_digest(self.spec),
                "prompt": self.spec.prompts.get(role, ""),  # type: ignore[call-overload]
                "dense_folder": self.spec.dense_folder,
                "max_length": self.spec.max_length,
                "dtype": self.dtype,
                "engine": "sentence-transformers",
                "normalised": True,
            }
        )[:16]

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32, in the order of `texts`."""
        import torch

        prompt = self.spec.prompts.get(role, "")  # type: ignore[call-overload]
        tokens = self.model.tokenizer(
            [prompt + text for text in texts], truncation=True, max_length=self.model.max_seq_length
        )
        lengths = [len(ids) for ids in tokens["input_ids"]]
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        with torch.inference_mode(), progress_bar(len(texts), self.spec.name, "texts") as bar:
            for batch in token_budget_batches(lengths, self.spec.max_batch_tokens):
                with autocast(self.dtype):
                    encoded = self.model.encode(
                        [texts[i] for i in batch],
                        prompt=prompt or None,
                        batch_size=len(batch),
                        convert_to_tensor=True,
                        show_progress_bar=False,
                    )
                vectors[batch] = torch.nn.functional.normalize(encoded.float(), dim=1).cpu().numpy()
                bar.update(len(batch))
        return vectors


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
