"""Which files a path means: a file, a folder or a glob, also through links and however names are spelt."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

JUNK = "__MACOSX"
"""The folder that macOS adds to archives. Its other additions are hidden: `._name` and `.DS_Store`."""


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files below a folder with one of the suffixes, in whatever case; hidden files are not among them.

    Args:
        folder: Links to folders in it are followed, each folder once.
        suffixes: In lower case, with the dot.

    Returns:
        In the order of their names. A link to nothing is among them, so that it can be reported.

    Raises:
        OSError: A folder cannot be listed.
    """
    # Sorted: file systems list folders in different orders.
    return sorted(path for path in _walk(folder) if path.name.lower().endswith(tuple(suffixes)))


def files_like(pattern: str, folder: Path) -> list[Path]:
    """The files that a glob matches, in the order of their names.

    Args:
        pattern: `**` stands for any folders. Hidden files match only where the pattern names them.
        folder: That a relative pattern counts from. Its own name is not a pattern, whatever characters it has.

    Raises:
        OSError: A folder cannot be listed.
    """
    pattern = os.path.expanduser(pattern)  # noqa: PTH111 (a Path would simplify the pattern)
    parts = Path(pattern).parts
    if "**" in parts:
        at = parts.index("**")
        roots = glob.glob(str(Path(*parts[:at])), root_dir=folder) if at else ["."]  # noqa: PTH207 (as below)
        found = [
            path
            for root in (folder / name for name in roots)
            for path in _walk(root)
            if _matches(path.relative_to(root).parts, parts[at:])
        ]
    else:
        found = [folder / name for name in glob.glob(pattern, root_dir=folder)]  # noqa: PTH207 (a Path knows no root_dir)
    return sorted({path for path in found if not path.is_dir() and (JUNK in parts or JUNK not in path.parts)})


def _walk(folder: Path) -> Iterator[Path]:
    """The visible files below a folder. A folder that links lead to several times, e.g. to itself, is walked once."""

    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        status = os.stat(name)  # noqa: PTH116 (quicker than a Path for many folders)
        new = (status.st_dev, status.st_ino) not in seen
        seen.add((status.st_dev, status.st_ino))
        # In place, so that `os.walk` descends into these only, in an order that does not depend on the file system.
        folders[:] = sorted(each for each in folders if new and each != JUNK and not each.startswith("."))
        yield from (Path(name, each) for each in files if new and not each.startswith("."))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
