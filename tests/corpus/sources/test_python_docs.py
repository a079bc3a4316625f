"""Docstrings as texts."""

import pytest

from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.python_docs import docstring_texts


def test_a_package_that_is_not_installed_is_named(corpus_with):
    corpus = corpus_with(kind="python_docs", packages=["no-such-package"])
    with pytest.raises(SourceError, match="'no-such-package' is not installed"):
        corpus.sources[0].check()


def test_docstrings_are_prose_without_parameter_tables_or_examples():
    texts = list(docstring_texts(["networkx"], queries=True))
    documents = {item.origin: item for item in texts if item.role == "document"}
    path = documents["networkx.algorithms.shortest_paths.generic.shortest_path"]
    assert path.text == "Compute shortest paths in the graph."
    assert path.licence == "BSD-3-Clause"
    assert not any(">>>" in item.text or "\nParameters\n" in item.text for item in texts)
    queries = [item for item in texts if item.role == "query"]
    assert all(" ".join(item.parent.split()).startswith(item.text) for item in queries)
