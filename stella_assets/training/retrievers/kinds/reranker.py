"""The kind `reranker`: a cross-encoder, which reads the query and a document together.

Shapes: B lists of a batch, C candidates of a list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Dtype
from stella_assets.core.models import (
    CONFIG,
    ModelFiles,
    load_cross_encoder,
    own_format,
    read_shape,
    without_cycle,
)
from stella_assets.training.retrievers.base import DEPTH, RETRIEVERS, RetrieverConfig, RetrieverError, Row

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stella_assets.core.devices import Compute
    from stella_assets.training.retrievers.lists import ListBatch

HEAD = re.compile(r"(^|\.)(pooler|pre_classifier|classifier|score|head|pooling_head|sequence_summary)\.")
"""Weights over the encoder, which an encoder that was no reranker lacks."""
RERANKERS = ("ForSequenceClassification", "ForCausalLM")
"""Ends of the architectures that score pairs already."""


@RETRIEVERS.register
class Reranker(RetrieverConfig):
    """A cross-encoder reads the query and a document together, and gives one score.

    References:
        Nogueira and Cho 2019, Passage Re-ranking with BERT, arXiv 1901.04085.
    """

    pipeline_tag: ClassVar[str] = "text-ranking"
    tags: ClassVar[tuple[str, ...]] = ("cross-encoder", "reranker")

    kind: Literal["reranker"]
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = Field(
        256, description="tokens of a query and a document together; the longer one is cut"
    )
    rerank_k: Annotated[int, Field(ge=2, le=DEPTH)] = Field(
        DEPTH,
        description="the first documents of the last stage that it ranks, on retrieval tasks and in `stella search`",
        exclude_if=lambda documents: documents == DEPTH,
    )

    @property
    def texts_per_list(self) -> int:
        """Each candidate together with the query; see `RetrieverConfig.texts_per_list`."""
        return self.candidates

    @property
    def reranks(self) -> int:
        """See `RetrieverConfig.reranks`."""
        return self.rerank_k

    @property
    def longest(self) -> int:
        """See `RetrieverConfig.longest`."""
        return self.max_length

    def check(self, student: ModelSource) -> None:
        """Also that transformers has a head for such a model; see `RetrieverConfig.check`."""
        super().check(student)
        source = self.start or student
        if source.on_hub or source.trust_remote_code:
            return
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

        if (kind := read_shape(source).model_type) not in KNOWN:
            raise RetrieverError(
                f"retriever {self.name!r}: {source.model} is of type {kind!r}, for which transformers has no model "
                "that gives one score for a pair of texts.",
                "Name another model in `start`, or train a `multi_vector`.",
            )

    def describe(self) -> str:
        """See `RetrieverConfig.describe`."""
        losses = ", ".join(loss.loss for loss in self.losses.weighted())
        return (
            "Trains a [cross-encoder](https://arxiv.org/abs/1901.04085), which reads a query and a document together, "
            f"on lists of {self.candidates} candidates ({losses})."
        )

    def how_to_score(self) -> str:
        """See `RetrieverConfig.how_to_score`."""
        return """import torch
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
pairs = [(query, document) for query in queries for document in documents]
logits = model.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
scores = logits.reshape(len(queries), len(documents))"""

    def initialise(self, source: ModelSource, saved: Path | None, seed: int, compute: Compute) -> RerankerModel:
        """The encoder with a random head, or a reranker as it is; see `RetrieverConfig.initialise`."""
        import torch

        files = ModelFiles(source, saved)
        architectures = (files.read(files.in_encoder(CONFIG)) or {}).get("architectures") or [""]
        scores_pairs = saved is None and architectures[0].endswith(RERANKERS)
        # Forked: the seed must not reach whatever draws next in this process.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, new = load_cross_encoder(
                source,
                saved=saved,
                max_length=self.max_length,
                num_labels=None if scores_pairs else 1,
                is_new=lambda name: not scores_pairs and bool(HEAD.search(name)),
            )
        return RerankerModel(model, compute, new)

    def load(self, folder: Path, compute: Compute) -> RerankerModel:
        """See `RetrieverConfig.load`."""
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
        return RerankerModel(without_cycle(model), compute)


class RerankerModel:
    """A cross-encoder. Dropout is off throughout, so that runs are repeatable to the bit.

    Args:
        model: A `CrossEncoder`.
        compute: Where it computes.
        new: Names of the weights that are random, in its transformers model.
    """

    def __init__(self, model: Any, compute: Compute, new: frozenset[str] = frozenset()) -> None:
        self.model = model
        self._compute, self._new = compute, new
        self.dtype: Dtype = compute.dtype(own_format(model.config.model_type))
        # Evaluation mode also while it trains: it is what turns dropout off.
        self.model.to(compute.device).eval()

    def groups(self) -> list[tuple[list[nn.Parameter], bool]]:
        """See `Trainee.groups`."""
        own = [(name, weight) for name, weight in self.model.model.named_parameters() if weight.requires_grad]
        return [([weight for name, weight in own if (name in self._new) == is_new], is_new) for is_new in (False, True)]

    def rows(self, batch: ListBatch) -> list[Row]:
        """Each query with each of its candidates; see `Trainee.rows`."""
        pairs = batch.there_BC.nonzero().tolist()
        place = batch.place_BC.tolist()
        return [Row("pair", (batch.queries[i], batch.documents[place[i][j]])) for i, j in pairs]

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        """The logit of each pair; see `Trainee.outputs`."""
        features = self.model.preprocess([list(row.text) for row in rows])
        features = {k: v.to(self._compute.device) if hasattr(v, "to") else v for k, v in features.items()}
        with self._compute.autocast(self.dtype):
            found = self.model(features)["scores"]
        return list(found.float().reshape(-1))

    def scores(self, outputs: Sequence[Tensor], batch: ListBatch) -> Tensor:
        """See `Trainee.scores`."""
        import torch

        found_P = torch.stack(list(outputs))
        score_BC = found_P.new_zeros(batch.there_BC.shape)
        return score_BC.masked_scatter(batch.there_BC.to(found_P.device), found_P)

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Logits: those of good and of bad pairs lie apart, where their probabilities round to 1 and 0."""
        import numpy as np
        import torch

        pairs = list(zip(queries, documents, strict=True))
        found = self.model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """See `Trainee.save`."""
        self.model.save_pretrained(str(folder), create_model_card=False)
