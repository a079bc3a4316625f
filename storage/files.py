"""Files that are written whole or not at all, and digests that are computed once per content."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# 128 of 256 bits: short enough to show, and far too many for two contents to meet by chance.
DIGEST_CHARS = 32
_digests: dict[Path, tuple[int, int, str]] = {}


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    # `os.open` instead of `open`, because a folder has no file object; fsync accepts a read-only descriptor.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends without an error, it replaces `path` in one rename.

    A reader sees the old content or the new one. After an error the temporary file is removed and `path` is as before.

    Args:
        path: The file or link to replace; its folder is made if needed.

    Yields:
        A path in the same folder, where nothing lies yet.

    Example:
        >>> with replace_atomically(folder / "scores.parquet") as fresh:
        ...     frame.write_parquet(fresh)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is atomic only within one file system. The names keep threads and processes apart.
    fresh = path.with_name(f".{path.name}.{threading.get_ident()}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        yield fresh
        # Content before name: otherwise a power failure can leave the new name with an empty file.
        # A link has no content of its own, and fsync would follow it.
        if not fresh.is_symlink():
            sync(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a draft to write into; when the block ends without an error, it becomes `folder` in one rename.

    A killed writer leaves a hidden folder next to it, which the next one for the same folder replaces.

    Args:
        folder: It must be empty or not exist.

    Yields:
        The draft.

    Raises:
        OSError: Somebody put a file into the folder meanwhile; nothing of it is lost.
    """
    # In the same parent, so that the rename stays within one file system.
    draft = folder.absolute().with_name(f".{folder.absolute().name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        apply_umask(draft)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def resolved(path: Path) -> Path:
    """Where a path leads through all links; unlike `Path.resolve`, it does not fail for a link that leads to itself."""
    return Path(os.path.realpath(path))


def below(root: Path) -> Iterator[Path]:
    """All files and folders below a folder, of those that are still there when they are looked at.

    `Path.rglob` fails where another process removes a folder at the same time.
    """
    for place, folders, files in os.walk(root):
        yield from (Path(place, name) for name in (*folders, *files))


def is_left_over(path: Path) -> bool:
    """Whether a file or link is a temporary one of `replace_atomically` whose process is gone."""
    pid = path.name.rpartition(".")[2]
    if (
        not path.name.startswith(".")
        or not (pid.isascii() and pid.isdigit())
        or (path.is_dir() and not path.is_symlink())
    ):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old content or the new one; text is encoded as UTF-8."""
    with replace_atomically(path) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


def link_atomically(link: Path, target: str | Path) -> None:
    """Make a symbolic link, or redirect one, in one rename."""
    with replace_atomically(link) as fresh:
        fresh.symlink_to(target)


def apply_umask(folder: Path) -> None:
    """Give everything in a folder the permissions of the folder itself, which the umask decided when it was made.

    Libraries that write through a temporary file, e.g. safetensors, leave files that only their owner can read.

    Args:
        folder: Links in it are left alone, as they may lead out of it.
    """
    # Not `os.umask`, which cannot be asked without changing it for all threads.
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(mode if path.is_dir() else mode & 0o666)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, the first 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_CHARS]


def file_digest_unless_changed(path: Path) -> str:
    """`file_digest`, computed again only when the file's size or modification time changed within this process."""
    # Resolved, so that all links to one file share its digest.
    path = path.resolve()
    status = path.stat()
    known = _digests.get(path)
    if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
        return known[2]
    digest = file_digest(path)
    _digests[path] = (status.st_size, status.st_mtime_ns, digest)
    return digest
