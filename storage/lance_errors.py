"""What Lance and object stores say in errors, translated into errors of this package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stella_assets.storage.errors import (
    AccessError,
    ConflictError,
    DamageError,
    DiskSpaceError,
    StorageError,
    StoreError,
    UnreachableError,
)

# Lance has no error classes of its own: what happened is only in the words of the message. The first match counts.
TRANSLATIONS: tuple[tuple[tuple[str, ...], type[StorageError], str], ...] = (
    # First, because Lance wraps a full disk in words that also match damage below.
    (
        ("No space left on device", "os error 28", "File too large", "Disk quota exceeded"),
        DiskSpaceError,
        "the disk is full. Nothing that was committed is lost.",
    ),
    (
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "Failed to get AWS credentials",
        ),
        AccessError,
        "the object store refuses the credentials, or there are none: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_REGION.",
    ),
    (
        ("BadScheme", "URL scheme is not allowed"),
        UnreachableError,
        "the object store's address is plain http: AWS_ENDPOINT_URL must be an https address, or AWS_ALLOW_HTTP=true "
        "be set.",
    ),
    (
        ("error sending request", "ConnectError", "kind: Connect", "kind: Timeout", "Connection refused", "dns error"),
        UnreachableError,
        "the object store does not answer at AWS_ENDPOINT_URL in AWS_REGION.",
    ),
    (
        ("Permission denied", "os error 13", "Read-only file system", "AccessDenied", "403 Forbidden"),
        AccessError,
        "no permission to read or write it.",
    ),
    (("NoSuchBucket",), UnreachableError, "there is no such bucket."),
    (
        # The last one is what LanceDB says of its own cloud, `db://`.
        ("No object store provider found", "did not match any known pattern for scheme", "api_key is required"),
        StoreError,
        "is not an address of an object store.",
    ),
    (
        # The last two are what the slower of two machines that make the same table gets.
        ("ommit conflict", "Incompatible transaction", "Dataset already exists", "/0.manifest was not found"),
        ConflictError,
        "another machine changed this table at the same moment.",
    ),
    (("Not a directory", "os error 20", "File exists"), StoreError, "is not a folder."),
    # Last, because these words are part of many messages that an entry above explains better.
    (
        (
            "Not found",
            "NotFound",
            "No such file",
            "LanceError(IO)",
            "LanceError(Arrow)",
            "Invalid",
            "Encountered",
            "out of bounds",
            "failed to",
        ),
        DamageError,
        "cannot be read: it is damaged or incomplete.",
    ),
)


@contextmanager
def translate_lance_errors(uri: str) -> Iterator[None]:
    """Turn what Lance says of disks, permissions and damage into errors of this package; others pass as they are.

    Raises:
        DiskSpaceError: The disk is full.
        ConflictError: Another machine committed first.
        AccessError: Credentials or permissions are missing.
        UnreachableError: The object store does not answer.
        DamageError: Files are damaged or missing.
    """
    try:
        yield
    # The three classes that Lance's Rust errors arrive as; anything else is a bug of the caller.
    except (OSError, RuntimeError, ValueError) as error:
        words = str(error)
        for signs, kind, meaning in TRANSLATIONS:
            if any(sign in words for sign in signs):
                raise kind(f"{uri}: {meaning} ({_answer(words)})", uri) from error
        raise


def _answer(text: str) -> str:
    """What an object store answered, else how the error begins."""
    if answer := re.search(r"<Code>(\w+)</Code>\s*<Message>([^<]*)", text):
        return f"{answer[1]}: {answer[2]}"
    # Lance ends its messages with the path of a Rust source file, and chains causes over several lines.
    return text.strip().split("\n")[0].split(", /")[0][:200]
