"""The two things that flow through the pipeline: examples, and what a model computes of them.

Shape legend: T tokens or image patches of one example, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal["document", "query"]
"""How a text is used in search. Teachers and students may encode the two roles with different prompts."""
EmbeddingKind = Literal["vector", "token_vectors", "score"]


@dataclass(frozen=True)
class Example:
    """One thing to learn from: a text, an image, both, or a pair of other examples.

    Attributes:
        id: Of the content, hexadecimal; equal contents have equal ids.
        text: The text, in normal form.
        image: An encoded image, e.g. PNG or JPEG.
        pair: Ids of a query and of a document; the example is their relation.
        role: `document` or `query`.
        group: Examples of one group belong to the same split.
        source: Name of the source that it came from.
        section: Part of the source, e.g. a file or a package.
        licence: SPDX expression or plain words, as the source states it.
        origin: Place within the source, for people, e.g. `tickets.csv:17`.

    Raises:
        ValueError: It has neither text, image nor pair.

    Example:
        >>> Example(id="6dc8", text="How do I reset my password?", role="query")
    """

    id: str
    text: str | None = None
    image: bytes | None = None
    pair: tuple[str, str] | None = None
    role: Role = "document"
    group: str = ""
    source: str = ""
    section: str = ""
    licence: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if self.text is None and self.image is None and self.pair is None:
            raise ValueError(f"example {self.id}: it has neither text, image nor pair")


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a model computes of one example: exactly one of the three attributes is set.

    Attributes:
        vector: `[D]`, one vector for the whole example.
        token_vectors: `[T, D]`, one vector per token or image patch, for late interaction.
        score: The relevance of a pair.

    Raises:
        ValueError: None or several are set, a shape is not as stated, or a value is not finite.

    Example:
        >>> Embedding.of_vector(np.ones(3)).kind
        'vector'
    """

    vector: np.ndarray | None = None
    token_vectors: np.ndarray | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        import numpy as np

        # `vars`, not `asdict`, which would copy every array.
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"an embedding has exactly one of vector, token_vectors and score, not {len(given)}")
        ((name, value),) = given.items()
        dimensions = {"vector": 1, "token_vectors": 2, "score": 0}[name]
        if np.ndim(value) != dimensions:
            raise ValueError(f"{name} has {np.ndim(value)} axes, not {dimensions}")
        # Refused here, where the teacher is known: one NaN in a training batch would reach every weight.
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has values that are not finite")

    @classmethod
    def of_vector(cls, vector: np.ndarray) -> Embedding:
        """One vector `[D]` for the whole example."""
        return cls(vector=vector)

    @classmethod
    def of_tokens(cls, token_vectors: np.ndarray) -> Embedding:
        """One vector per token, `[T, D]`."""
        return cls(token_vectors=token_vectors)

    @classmethod
    def of_score(cls, score: float) -> Embedding:
        """The relevance of a pair."""
        return cls(score=float(score))

    @property
    def kind(self) -> EmbeddingKind:
        """Which of the three it is."""
        return "vector" if self.vector is not None else "score" if self.score is not None else "token_vectors"
