"""What the tests of source kinds share."""

from collections.abc import Iterator

import pytest

from stella_assets.corpus.sources import Malformed, RawText, SourceConfig
from stella_assets.corpus.sources.huggingface import hub_commit


def texts_of(source: SourceConfig) -> list[RawText | Malformed]:
    return [text for part in source.parts() for text in source.read(part)]


@pytest.fixture(autouse=True)
def _fresh_hub() -> Iterator[None]:
    """No test uses an answer of the hub from another one."""
    hub_commit.cache_clear()
    yield
    hub_commit.cache_clear()
