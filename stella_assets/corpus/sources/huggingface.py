"""Source kind `huggingface`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import Field

from stella_assets.core.config import Positive
from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sources.base import SOURCES, Preview, Rows, SourcePart
from stella_assets.corpus.sources.columns import ColumnSource
from stella_assets.storage.canonical import digest

READING_VERSION = 2
"""Raised when the same data set gives other rows, so that it is read again."""


@SOURCES.register
class HuggingFace(ColumnSource):
    """A data set of the Hugging Face hub, streamed.

    Example:
        Of `corpus.sources` in a recipe::

            {name: web, kind: huggingface, dataset: HuggingFaceFW/fineweb-edu, revision: main, limit: 100000,
             licence: ODC-By-1.0}
    """

    kind: Literal["huggingface"]
    dataset: str = Field(description="its id, e.g. `HuggingFaceFW/fineweb-edu`")
    revision: str = Field(description="a commit, or a branch or tag, which is resolved when the corpus is made")
    config: str | None = Field(default=None, description="the subset; the default subset when left out")
    dataset_split: str = Field(default="train", description="the split that is read")
    # Required here: such data sets can have billions of rows.
    limit: Positive = Field(description="texts read from the stream")

    def parts(self) -> list[SourcePart]:
        """The data set at the commit that the revision names."""
        return [SourcePart(digest([READING_VERSION, self.dataset, hub_commit(self.dataset, self.revision)]))]

    def pinned(self) -> Self:
        """The source at the commit that the revision names."""
        return self.with_values(revision=hub_commit(self.dataset, self.revision))

    def read(self, part: SourcePart) -> Rows:
        """The first `limit` rows of the split.

        Raises:
            SourceError: The data set does not have the columns.
        """
        from datasets import load_dataset

        rows = load_dataset(self.dataset, self.config, split=self.dataset_split, revision=self.revision, streaming=True)
        section = self.config or self.dataset
        for number, row in enumerate(rows.take(self.limit), 1):
            # A streamed data set may not state its columns before the first row.
            if number == 1:
                self.columns.require(list(row), self.dataset, self.name)
            yield from self.columns.texts_of(row, self, section, f"{self.dataset}:{number}")

    def check(self) -> None:
        """Nothing is checked: a recipe can be validated without a connection. The hub is asked for the first digest."""

    def preview(self) -> Preview:
        """Nothing is read, as nothing is checked."""
        return Preview(remarks=("not looked at, since it is on the hub",))

    def hub_datasets(self) -> list[str]:
        """Its id."""
        return [self.dataset]

    def reading_settings(self) -> dict[str, Any]:
        """All settings but the choice among the rows; the limit decides where the stream ends."""
        return self.settings("weight", "max_malformed")


@lru_cache(maxsize=1024)
def hub_commit(dataset: str, revision: str) -> str:
    """The commit that a revision of a data set names. The hub is asked once per process.

    One answer for the whole process also keeps the digest of a source and the rows that are read from it consistent.

    Raises:
        SourceError: The hub cannot be asked.
    """
    # A full commit needs no connection.
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(dataset, revision=revision).sha)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise SourceError(
            f"{dataset}: the hub did not say which commit revision {revision!r} is ({type(error).__name__}).",
            "Connect to the hub, or give the commit's 40 hexadecimal digits as `revision`.",
        ) from None
