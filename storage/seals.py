"""Digests of the files of a table, kept in its folder, so that a copied folder can still be verified.

A file of rows gets its digest before it is committed. Manifests and tags, which Lance writes itself, get theirs after
the commit, in local tables only: an object store keeps checksums of its own.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stella_assets.storage.files import DIGEST_CHARS, write_atomically

DIGESTS, VERSIONS, TAGS = "_digests", "_versions", "_refs/tags"


@dataclass(frozen=True)
class UnitDigest:
    """What a file of a table should be.

    Attributes:
        path: Inside the table's folder.
        rows: Rows of the unit, deleted ones included; 0 for a manifest or a tag.
        bytes: Size.
        sha256: Of the file's bytes, in hexadecimal.
    """

    path: str
    rows: int
    bytes: int
    sha256: str


def digest_path(path: str) -> str:
    """Where the digest of a file of a table is kept, in the table's folder."""
    return f"{DIGESTS}/{Path(path).name}.json"


def tag_path(tag: str) -> str:
    """Where a tag lies, in the table's folder."""
    return f"{TAGS}/{tag}.json"


def manifest_path(folder: Path, tag: str | None = None) -> str | None:
    """Path of the manifest of a version in a local table's folder; None where no name tells it.

    Args:
        folder: Of the table.
        tag: Of the version; the newest one when left out.
    """
    # Lance names the manifest of a version v 2^64 - 1 - v, so the newest comes first; older tables use v itself.
    if tag is None:
        names = sorted(path.name for path in (folder / VERSIONS).glob("*.manifest"))
        return f"{VERSIONS}/{names[0]}" if names and len(names[0]) == len(f"{2**64}.manifest") else None
    with suppress(OSError, ValueError, KeyError, TypeError):
        version = int(json.loads((folder / tag_path(tag)).read_text(encoding="utf-8"))["version"])
        return f"{VERSIONS}/{2**64 - 1 - version}.manifest"
    return None


def seal_version(uri: str, tag: str | None = None) -> None:
    """Keep the digests of the newest manifest of a local table, and of a tag, after a commit.

    After a kill before it they have none, and get them when they are first looked at.
    """
    if "://" not in uri and (manifest := manifest_path(Path(uri))):
        for path in (manifest, *([tag_path(tag)] if tag else [])):
            _seal(Path(uri), path)


def version_digest(folder: Path, path: str) -> str | None:
    """The digest, as `file_digest` gives it, that a manifest or a tag of a local table was committed with.

    Returns:
        None where there is no such file.
    """
    with suppress(OSError, ValueError, TypeError):
        return UnitDigest(**json.loads((folder / digest_path(path)).read_bytes())).sha256[:DIGEST_CHARS]
    return _seal(folder, path)


def _seal(folder: Path, path: str) -> str | None:
    try:
        content = (folder / path).read_bytes()
    except FileNotFoundError:
        return None
    digest = UnitDigest(path, 0, len(content), hashlib.sha256(content).hexdigest())
    write_atomically(folder / digest_path(path), json.dumps(asdict(digest)))
    return digest.sha256[:DIGEST_CHARS]
