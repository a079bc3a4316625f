"""A kind of teacher of your own: one class with settings and behaviour, registered under a name that recipes use.

Run it with `python examples/own_teacher.py`. To use a kind in every recipe, put it into a package:
examples/third_party_package.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stella_assets.core.config import Positive
from stella_assets.core.devices import Compute
from stella_assets.pipelines.environment import prepare_libraries
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.kinds.base import TEACHERS, EmbeddingKind, TeacherConfig

HERE = Path(__file__).parent


@TEACHERS.register
class HashedNgrams(TeacherConfig):
    """Counts of character n-grams, hashed into a fixed number of dimensions: it knows spelling, not meaning."""

    kind: Literal["hashed_ngrams"]
    dim: Positive = Field(64, description="dimensions of a vector")
    length: Positive = Field(4, description="longest n-gram, in characters")

    def external_versions(self, compute: Compute) -> Mapping[str, str]:
        """None: the vectors depend on the settings alone."""
        return {}

    def check(self) -> int:
        """Its dimensions."""
        return self.dim

    def open(self, folder: Path, compute: Compute) -> HashedNgramsModel:
        """The model; there is nothing to load."""
        return HashedNgramsModel(self)


class HashedNgramsModel:
    """The opened teacher."""

    embedding: EmbeddingKind = "vector"

    def __init__(self, config: HashedNgrams) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.config = config
        self.dim = config.dim
        self._vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(1, config.length), n_features=config.dim)

    def describe(self, role: str) -> dict[str, Any]:
        """Everything that a vector depends on in addition to the text."""
        return {"kind": "hashed_ngrams", "dim": self.dim, "length": self.config.length, "engine": "scikit-learn"}

    def fingerprint(self, role: str) -> str:
        """Names what `describe` says."""
        return digest(self.describe(role))[:16]

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        """Unit-norm vectors `[len(texts), dim]` float32."""
        return np.asarray(self._vectorizer.transform(texts).toarray(), dtype=np.float32)

    def parameters(self) -> int:
        """It has none."""
        return 0


def main(folder: Path) -> None:
    """Distil a student from the teacher."""
    from stella_assets.core.runner import Runner  # recipes know all kinds that were registered before
    from stella_assets.core.step import upstream
    from stella_assets.recipe import Graph, parse_recipe, read_raw

    prepare_libraries()
    raw = read_raw(HERE / "small.yaml")
    raw["teachers"] = [{"name": "spelling", "kind": "hashed_ngrams", "licence": "MIT"}]
    raw["release"]["dimension"] = 64
    graph = Graph(parse_recipe(raw, HERE / "small.yaml"))
    runner = Runner(Workspace(folder), logging.getLogger("example"))
    for step in upstream(graph.stages[-1]):
        runner.make(step)
    print("texts:", runner.require(graph.teachers["spelling"]).manifest.metrics["embedded_now"])
    print("stage 1:", runner.require(graph.stages[-1]).digest)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/examples"))
