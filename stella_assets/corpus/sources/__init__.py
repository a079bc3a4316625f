"""Sources of texts, one file per kind. A file in this folder registers itself."""

from stella_assets.core.registry import import_kinds
from stella_assets.corpus.sources.base import (
    SOURCES,
    Malformed,
    Preview,
    RawText,
    Relation,
    Rows,
    RowSource,
    SourceConfig,
    SourcePart,
)
from stella_assets.corpus.sources.columns import Columns, ColumnSource
from stella_assets.corpus.sources.files import EncodedFileSource, FileSource, kind_of_files

import_kinds(__name__, __path__)

__all__ = [
    "SOURCES",
    "ColumnSource",
    "Columns",
    "EncodedFileSource",
    "FileSource",
    "Malformed",
    "Preview",
    "RawText",
    "Relation",
    "RowSource",
    "Rows",
    "SourceConfig",
    "SourcePart",
    "kind_of_files",
]
