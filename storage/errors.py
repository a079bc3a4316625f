"""Errors of the storage layer: what is wrong and where. Callers decide what to advise by the type of the error."""

from __future__ import annotations

from pathlib import Path


class StorageError(Exception):
    """Base of every error that the storage layer raises on purpose.

    Args:
        message: What is wrong and where.
        path: The file, folder or URI that it is about.
    """

    def __init__(self, message: str, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)


class StoreError(StorageError):
    """The vector store cannot be used as it is: it is missing, foreign, or out of reach."""


class FormatError(StoreError):
    """A table was written by a newer version of this package."""


class AccessError(StoreError):
    """The credentials or the permissions do not allow reading or writing the store."""


class UnreachableError(StoreError):
    """The object store does not answer, or its address is wrong."""


class ConflictError(StoreError):
    """Another machine changed the table at the same moment; nothing was committed."""


class DamageError(StoreError):
    """Files of the store are damaged; a repair can remove and recompute them."""


class MissingSnapshotError(StoreError):
    """No snapshot has the requested name or tag."""


class VectorError(StorageError):
    """Values do not fit a table, e.g. are of the wrong shape, not finite, or not of unit norm."""


class MissingKeysError(VectorError):
    """Some keys have no value in a table."""


class DiskSpaceError(StorageError):
    """The disk has too little room for what is about to be written."""


class ReleaseError(StorageError):
    """A release cannot be promoted, shown or restored."""


class NoReleaseError(ReleaseError):
    """There is no such release, or none to go back to."""


class MissingReleaseError(ReleaseError):
    """The files of a release are gone."""


class TransferError(StorageError):
    """Vectors or texts cannot be exported or imported."""
