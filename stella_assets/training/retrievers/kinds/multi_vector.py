"""The kind `multi_vector`: one vector per token, and MaxSim (late interaction, as in ColBERT).

Shapes: B lists of a batch, C candidates of a list, M documents of a batch, D dimensions of a token's vector.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from stella_assets.core.config import Dimension, ModelSource
from stella_assets.core.devices import Dtype
from stella_assets.core.models import load_sentence_transformer, load_tokenizer, own_format, without_cycle
from stella_assets.training.retrievers.base import RETRIEVERS, RetrieverConfig, RetrieverError, Row

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from stella_assets.core.devices import Compute
    from stella_assets.training.retrievers.lists import ListBatch

Length = Annotated[int, Field(ge=4, le=1_048_576)]


@RETRIEVERS.register
class MultiVector(RetrieverConfig):
    """A vector per token; a document's score is the sum over the query's tokens of the largest cosine (MaxSim).

    References:
        Khattab and Zaharia 2020, ColBERT, arXiv 2004.12832.
    """

    code_version: ClassVar[str] = "2"
    reads: ClassVar[tuple[str, ...]] = ("list", "batch")

    pipeline_tag: ClassVar[str] = "sentence-similarity"
    tags: ClassVar[tuple[str, ...]] = ("multi-vector", "late-interaction")

    kind: Literal["multi_vector"]
    token_dim: Dimension = Field(128, description="dimensions of a token's vector")
    query_marker: str = Field("[Q] ", description="put before each query; empty for none")
    document_marker: str = Field("[D] ", description="put before each document; empty for none")
    query_length: Length = Field(32, description="tokens of a query; the rest of it is cut off")
    document_length: Length = Field(256, description="tokens of a document; the rest of it is cut off")
    skiplist: tuple[str, ...] | None = Field(
        None, description="tokens of documents that get no vector; by default those of punctuation"
    )
    token_pooling: Annotated[float, Field(ge=1, le=100)] = Field(
        1.0,
        description="one of how many token vectors of a document is kept, after training: similar ones become their "
        "mean; 1 keeps all",
    )
    index: Literal["test", "all"] = Field(
        "test",
        description="documents that the step `retriever_index/<name>` encodes: those of the test split, or all",
        exclude_if=lambda index: index == "test",
    )

    @property
    def longest(self) -> int:
        """See `RetrieverConfig.longest`."""
        return max(self.query_length, self.document_length)

    @property
    def dimension(self) -> int:
        """See `RetrieverConfig.dimension`."""
        return self.token_dim

    @property
    def indexed_split(self) -> str | None:
        """See `RetrieverConfig.indexed_split`."""
        return None if self.index == "all" else self.index

    def check(self, student: ModelSource) -> None:
        """Also that what it skips are tokens; see `RetrieverConfig.check`."""
        super().check(student)
        if not (source := self.start or student).on_hub:
            self._skipped(load_tokenizer(source))

    def describe(self) -> str:
        """See `RetrieverConfig.describe`."""
        losses = ", ".join(loss.loss for loss in self.losses.weighted())
        return (
            f"Trains a vector of {self.token_dim} dimensions per token for "
            f"[late interaction](https://arxiv.org/abs/2004.12832) on lists of {self.candidates} candidates ({losses})."
        )

    def how_to_score(self) -> str:
        """See `RetrieverConfig.how_to_score`."""
        return """from sentence_transformers import MultiVectorEncoder

model = MultiVectorEncoder("path/to/this/folder")
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))"""

    def _skipped(self, tokenizer: Any) -> list[str]:
        vocabulary = tokenizer.get_vocab()
        if self.skiplist is None:
            # What the tokenizer has no token of its own for would skip its unknown token.
            return [sign for sign in string.punctuation if sign in vocabulary]
        if unknown := [word for word in self.skiplist if word not in vocabulary]:
            raise RetrieverError(
                f"retriever {self.name!r}: skiplist has {unknown[0]!r}, which is not a token of the model.",
                "Remove it, or write it as the tokenizer does.",
            )
        return list(self.skiplist)

    def initialise(self, source: ModelSource, saved: Path | None, seed: int, compute: Compute) -> MultiVectorRetriever:
        """The encoder with a projection of its token states; see `RetrieverConfig.initialise`.

        The linear head of a dense student turns the mean of its token states into vectors that rank documents, so the
        projection begins as this head in its first principal directions. Without such a head it begins random.
        """
        import torch
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
        from sentence_transformers.sentence_transformer.modules import Normalize

        dense_model = load_sentence_transformer(source, saved=saved)
        transformer = dense_model[0]
        transformer.query_length, transformer.document_length = self.query_length, self.document_length
        hidden = transformer.get_embedding_dimension()
        dense = Dense(
            hidden, self.token_dim, bias=False, activation_function=None, module_input_name="token_embeddings"
        )
        started = _principal_rows(dense_model, self.token_dim)
        if started is None:
            # Orthonormal rows: the projection begins with keeping cosines as well as a random one can.
            torch.nn.init.orthogonal_(dense.linear.weight, generator=torch.Generator().manual_seed(seed))
        else:
            dense.linear.weight.data.copy_(started)
        mask = MultiVectorMask(skiplist_words=self._skipped(transformer.tokenizer))
        modules = [transformer, dense, mask, Normalize("token_embeddings")]
        prompts = {"query": self.query_marker, "document": self.document_marker}
        model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts)
        return MultiVectorRetriever(without_cycle(model), compute, self.token_pooling)

    def load(self, folder: Path, compute: Compute) -> MultiVectorRetriever:
        """See `RetrieverConfig.load`."""
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True, trust_remote_code=self.trusts_code)
        # Pooled already, by a module that the folder names.
        return MultiVectorRetriever(without_cycle(model), compute, 1.0)


def _principal_rows(model: Any, dim: int) -> Tensor | None:
    """The linear head of a model in its first principal directions, `[dim, H]`; None where it has no such head.

    Of all maps to as many dimensions, it is nearest to the head (Eckart & Young 1936).
    """
    import torch
    from sentence_transformers.base.modules import Dense

    heads = [module for module in model if isinstance(module, Dense)]
    if len(heads) != 1 or not isinstance(heads[0].activation_function, torch.nn.Identity):
        return None
    weight_DH = heads[0].linear.weight.detach()
    if dim > min(weight_DH.shape):
        return None
    _, values, directions = torch.linalg.svd(weight_DH, full_matrices=False)
    rows = values[:dim, None] * directions[:dim]
    # The sign of a direction is arbitrary, and processes that train together need the same one.
    rows *= rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
    # Rows as long as orthonormal ones, on average, which learning rates are made for; cosines do not change.
    return rows * (dim**0.5 / rows.norm())


def _padded(vectors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Vectors of each text as one tensor `[N, T, D]`, and which of them are there `[N, T]`.

    In one operation: maxsim pads text by text, and the gradient of each copies the whole.
    """
    import torch

    lengths_N = torch.tensor([len(own) for own in vectors], device=vectors[0].device)
    there_NT = torch.arange(int(lengths_N.max()), device=lengths_N.device) < lengths_N[:, None]
    padded_NTD = vectors[0].new_zeros(*there_NT.shape, vectors[0].shape[1])
    return padded_NTD.index_put((there_NT,), torch.cat(list(vectors))), there_NT


class MultiVectorRetriever:
    """A multi-vector encoder. Dropout is off throughout, so that runs are repeatable to the bit.

    Args:
        model: A `MultiVectorEncoder`.
        compute: Where it computes.
        token_pooling: What the saved model pools tokens by; 1 for nothing.
    """

    def __init__(self, model: Any, compute: Compute, token_pooling: float) -> None:
        self.model = model
        self._compute, self._token_pooling = compute, token_pooling
        self.dtype: Dtype = compute.dtype(own_format(model[0].auto_model.config.model_type))
        # Evaluation mode also while it trains: it is what turns dropout off.
        self.model.to(compute.device).eval()

    def groups(self) -> list[tuple[list[nn.Parameter], bool]]:
        """See `Trainee.groups`."""
        new = {id(parameter) for parameter in self.model[1].parameters()}
        own = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [([p for p in own if (id(p) in new) == is_new], is_new) for is_new in (False, True)]

    def rows(self, batch: ListBatch) -> list[Row]:
        """The queries, then the documents; see `Trainee.rows`."""
        return [*(Row("query", text) for text in batch.queries), *(Row("document", text) for text in batch.documents)]

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        """Vectors `[tokens, D]` of each text, without the tokens of the skip list; see `Trainee.outputs`."""
        task = rows[0].task
        features = self.model.preprocess([row.text for row in rows], prompt=self.model.prompts[task], task=task)
        features = {k: v.to(self._compute.device) if hasattr(v, "to") else v for k, v in features.items()}
        with self._compute.autocast(self.dtype):
            found = self.model(features, task=task)
        masks = found["attention_mask"].bool()
        return [vectors[mask].float() for vectors, mask in zip(found["token_embeddings"], masks, strict=True)]

    def scores(self, outputs: Sequence[Tensor], batch: ListBatch) -> Tensor:
        """MaxSim of each query with its own candidates; see `Trainee.scores`."""
        from sentence_transformers.util.similarity import maxsim_pairwise

        queries, of_queries = _padded(outputs[: len(batch)])
        documents, of_documents = _padded(outputs[len(batch) :])
        list_P, place_P = batch.there_BC.nonzero(as_tuple=True)[0], batch.place_BC[batch.there_BC]
        found_P = maxsim_pairwise(queries[list_P], documents[place_P], of_queries[list_P], of_documents[place_P])
        score_BC = found_P.new_zeros(batch.there_BC.shape)
        return score_BC.masked_scatter(batch.there_BC.to(score_BC.device), found_P)

    def all_scores(self, outputs: Sequence[Tensor], batch: ListBatch) -> Tensor:
        """MaxSim of each query with each document; see `BatchScores.all_scores`."""
        from sentence_transformers.util.similarity import maxsim

        queries, of_queries = _padded(outputs[: len(batch)])
        documents, of_documents = _padded(outputs[len(batch) :])
        return maxsim(queries, documents, of_queries, of_documents)

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """MaxSim; see `Retriever.score_pairs`."""
        import numpy as np

        # Each text once, as pairs mostly share their queries.
        places: list[list[int]] = []
        vectors: list[Any] = []
        for texts, encode in ((queries, self.model.encode_query), (documents, self.model.encode_document)):
            once = {text: place for place, text in enumerate(dict.fromkeys(texts))}
            vectors.append(encode(list(once), convert_to_numpy=False, show_progress_bar=False))
            places.append([once[text] for text in texts])
        first, second = ([found[i] for i in at] for found, at in zip(vectors, places, strict=True))
        return np.asarray(self.model.similarity_pairwise(first, second).cpu().numpy(), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """See `Trainee.save`."""
        from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

        from stella_assets.students.dense.own_code import save_encoder

        pooled = self._token_pooling > 1
        if pooled:
            # For those who use it: clusters of tokens have no gradient, so training goes without.
            self.model.append(HierarchicalTokenPooling(self._token_pooling))
        self.model.save_pretrained(str(folder), create_model_card=False)
        # Again, with the code of an encoder that came with its own.
        save_encoder(self.model[0].auto_model, folder)
