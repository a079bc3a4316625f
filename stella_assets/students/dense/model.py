"""The module that trains: a transformers encoder, pooling, and named heads.

Shapes: B texts, H hidden dimensions of the encoder, D dimensions of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from stella_assets.core.batching import padded_widths, token_budget_batches
from stella_assets.core.devices import Compute, Dtype
from stella_assets.core.models import own_format
from stella_assets.core.progress import progress_bar
from stella_assets.students.base import FULL, StudentError
from stella_assets.students.dense.heads import Head
from stella_assets.students.tokenise import tokenise


class DenseStudent(nn.Module):
    """An encoder with heads. Dropout is off throughout: the targets are fixed, and runs are repeatable to the bit.

    Args:
        backbone: Transformer and pooling.
        pooling: Name of the pooling.
        heads: With weights of their own, by name. A head without is the first dimensions of the full one.
        dimensions: Of every head by name, the full one first, then the largest first.
        compute: Where it computes.

    Attributes:
        taught: Positions of the rows of the full head that a stage has taught, ascending; None for all of them. Only
            these give vectors: the others are as random as they began.
    """

    def __init__(
        self,
        backbone: SentenceTransformer,
        pooling: str,
        heads: Mapping[str, Head],
        dimensions: Mapping[str, int],
        compute: Compute,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.heads = nn.ModuleDict(dict(heads))
        self._rows = dict(dimensions)
        self.taught: Tensor | None = None
        self.dtype: Dtype = compute.dtype(own_format(self.transformer.config.model_type))
        self._compute = compute
        # Asked once: reading a signature is slow, and `forward` needs the answer at every step.
        takes = inspect.signature(self.transformer.forward).parameters
        # A model with a decoder makes the decoder's tokens of the encoder's.
        self._takes_vectors = "inputs_embeds" in takes and "decoder_input_ids" not in takes
        # Evaluation mode also while it trains: it is what turns dropout off.
        self.to(compute.device).eval()

    @property
    def max_tokens(self) -> int:
        """Tokens that are read of a text."""
        return int(self.backbone.max_seq_length or 512)

    @property
    def transformer(self) -> Any:
        """The transformers model."""
        return self.backbone[0].auto_model

    @property
    def dimensions(self) -> dict[str, int]:
        """Dimensions of the vectors of each head, the full one first, then the largest first."""
        return self._rows if self.taught is None else {**self._rows, FULL: len(self.taught)}

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each head's weights: `dimensions`, and the full head's rows that no stage has taught yet."""
        return dict(self._rows)

    @property
    def hidden(self) -> int:
        """Dimensions of the pooled state."""
        return int(self.transformer.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self, inputs: Sequence[Mapping[str, Any]] | Tensor, heads: Sequence[str], part: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Unit vectors of some heads, by name.

        Args:
            inputs: Features of texts, in groups of similar length; or pooled states that are known already.
            heads: Their names.
            part: The dimensions of the full head to give; all that were taught when left out.

        Returns:
            `[B, D]` float32 per head, texts in the order of the groups.
        """
        # All heads read one pooled state, so the encoder, which is nearly all the work, runs once.
        pooled_BH = inputs if isinstance(inputs, Tensor) else torch.cat([self.pool(g) for g in self._embedded(inputs)])
        return {head: self.project(pooled_BH, head, part if head == FULL else None) for head in heads}

    def _embedded(self, groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Look up the tokens of all groups at once where their table trains: a lookup's gradient is as big as it."""
        table = self.transformer.get_input_embeddings()
        trains = table.weight.requires_grad and torch.is_grad_enabled()
        if len(groups) < 2 or not trains or not self._takes_vectors:
            return groups
        ids = [group["input_ids"].to(self.device) for group in groups]
        # The gradient of a lookup is dense, a whole vocabulary per group; one lookup makes one of them.
        vectors = table(torch.cat([part.flatten() for part in ids])).split([part.numel() for part in ids])
        return [
            {key: value for key, value in group.items() if key != "input_ids"}
            | {"inputs_embeds": part.view(*shape.shape, -1)}
            for group, part, shape in zip(groups, vectors, ids, strict=True)
        ]

    def pool(self, features: Mapping[str, Any]) -> Tensor:
        """Pooled states `[B, H]` float32 of the encoder."""
        on_device = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        # Only the encoder runs in bfloat16. Pooled states leave in float32: heads, norms and losses need its steps.
        with self._compute.autocast(self.dtype):
            return self.backbone(on_device)["sentence_embedding"].float()

    def project(self, pooled_BH: Tensor, head: str, part: Tensor | None = None) -> Tensor:
        """Unit vectors `[B, D]` float32 of one head, or `[B, len(part)]` of some of its dimensions.

        Args:
            pooled_BH: Pooled states, float32.
            head: Name of the head.
            part: Positions of the dimensions to give; None for all that were taught.
        """
        vectors_BD = self.head(head)(pooled_BH, self._rows[head])
        if part is None and head == FULL:
            part = self.taught
        # Cut before the norm: the targets of a stage with some of the teachers are of unit norm by themselves.
        return normalize(vectors_BD if part is None else vectors_BD[:, part], dim=1)

    def head(self, name: str) -> Head:
        """The module that gives the vectors of a head; the full one where the head has no weights of its own."""
        return cast("Head", self.heads[name if name in self.heads else FULL])

    def weights(self, name: str) -> Head:
        """A copy of a head with only the rows that give its vectors."""
        # A prefix head is the first rows of the full one; the full one has rows that no stage has taught yet.
        rows = self.taught if name == FULL and self.taught is not None else slice(self._rows[name])
        return self.head(name).cut(rows)

    def head_of(self, dimension: int) -> str:
        """Name of the head with this dimension.

        Raises:
            StudentError: None has it.
        """
        for name, found in self.dimensions.items():
            if found == dimension:
                return name
        known = ", ".join(map(str, self.dimensions.values()))
        raise StudentError(
            f"the student has heads of {known} dimensions, none of {dimension}.",
            "Name one of these, or add it to student.matryoshka_dims.",
        )

    def encode_pooled(self, texts: Sequence[str], max_batch_tokens: int = 4096) -> np.ndarray:
        """Pooled states in token-budgeted batches.

        Args:
            texts: With their prompts.
            max_batch_tokens: Tokens of a batch, padding included.

        Returns:
            `[len(texts), H]` float32, in the order of `texts`.
        """
        limit = self.max_tokens
        tokens = tokenise(self.backbone.tokenizer, texts, limit)
        widths = padded_widths(tokens.lengths, limit)
        pooled = np.empty((len(texts), self.hidden), dtype=np.float32)
        with torch.inference_mode(), progress_bar(len(texts), "student", "texts") as bar:
            for batch in token_budget_batches(widths, max_batch_tokens):
                # A batch begins with its longest text, so the first width is that of the batch.
                pooled[batch] = self.pool(tokens.batch(batch, int(widths[batch[0]]))).cpu().numpy()
                bar.update(len(batch))
        return pooled

    def encode(self, texts: Sequence[str], head: str = FULL) -> np.ndarray:
        """Encode texts.

        Args:
            texts: With their prompts.
            head: Name of the head.

        Returns:
            Unit vectors `[len(texts), D]` float32.
        """
        pooled_BH = torch.from_numpy(self.encode_pooled(texts)).to(self.device)
        with torch.inference_mode():
            return self.project(pooled_BH, head).cpu().numpy()

    def start_matryoshka_heads(self, target_SD: Tensor, part: Tensor | None = None) -> None:
        """Start each Matryoshka head as the full head along the principal directions of a sample of targets.

        Args:
            target_SD: Targets of S texts, in the dimensions `part` of the full head.
            part: Positions of these; None for all.
        """
        # Not centred: the losses compare inner products, which the directions of the raw targets keep best.
        directions_DD = torch.linalg.svd(target_SD, full_matrices=False).Vh
        full = self.head(FULL)
        for name in self._rows:
            if self.head(name) is not full:  # a prefix head has no weights to start
                self.head(name).start_along(full, directions_DD, part)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def save(self, folder: Path, default_head: str, prompts: Mapping[str, str]) -> None:
        """Write the student in the layout of SentenceTransformers; `modules.json` names the head `default_head`."""
        from stella_assets.students.dense.files import save_student

        save_student(self, folder, default_head, prompts)

    @property
    def _no_split_modules(self) -> Any:
        """What FSDP gathers together, by accelerate's convention: the encoder says which of its modules are layers."""
        return self.transformer._no_split_modules
