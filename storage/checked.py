"""Whether files are as they were written, by digest.

A file that has not changed since it was last read is not read again. What was read is remembered in `checked/` of the
workspace: size, time of change, inode and digest of each file. A copy or a changed file differs in one of these, so it
is read again. The memory decides no content: without it, files are only read once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stella_assets.storage.files import below, file_digest, write_atomically
from stella_assets.storage.workspace import Workspace

Seen = tuple[int, int, int, str]
"""Size, time of change in nanoseconds, inode, digest."""


@dataclass(frozen=True)
class WrongFile:
    """A file that is not as it was written.

    Attributes:
        path: The file.
        expected: Its digest when it was written.
        found: Its digest now; empty where there is no such file.
    """

    path: Path
    expected: str
    found: str

    def __str__(self) -> str:
        if not self.found:
            return f"{self.path} is missing"
        return f"{self.path} was changed: its digest is {self.found}, and {self.expected} was written"


class CheckedFiles:
    """Files of one folder, compared with their digests.

    Args:
        workspace: The folder of all state.
        name: Of the group of files, e.g. `artefacts/corpus/<key>`; what was read is remembered under it.
        folder: Where the files are.

    Example:
        >>> CheckedFiles(workspace, "artefacts/corpus/0a1b", folder).wrong({"corpus.parquet": "9f2c..."})
        []
    """

    def __init__(self, workspace: Workspace, name: str, folder: Path) -> None:
        self._memory = workspace.checked / f"{name}.json"
        self._folder = folder

    def wrong(self, digests: Mapping[str, str], *, thorough: bool = False) -> list[WrongFile]:
        """Files that are missing or have another digest.

        Args:
            digests: By path in the folder.
            thorough: Read every file, also those that seem not to have changed.
        """
        remembered = self._read()
        known = {} if thorough else remembered
        # What is remembered may only spare reading a file that is whole; it is never the reason to call one damaged.
        known = {name: each for name, each in known.items() if each[3] == digests.get(name)}
        seen = {name: self._look(self._folder / name, known.get(name)) for name in digests}
        self._remember(remembered, {name: found for name, found in seen.items() if found})
        return [
            WrongFile(self._folder / name, expected, found[3] if found else "")
            for name, expected in digests.items()
            if (found := seen[name]) is None or found[3] != expected
        ]

    def unchanged(self, named: Iterable[str]) -> bool:
        """Whether these files, and all that were looked at the last time, have not changed since then."""
        known = self._read()
        return known.keys() >= set(named) and all(_state(self._folder / name) == known[name][:3] for name in known)

    def note(self, digests: Mapping[str, str]) -> None:
        """Remember the digests of files that were just written and read."""
        seen = {name: _state(self._folder / name) for name in digests}
        self._remember({}, {name: (*state, digests[name]) for name, state in seen.items() if state})

    def keep_only(self, named: Iterable[str]) -> None:
        """Forget all other files of the group, so that `unchanged` is about these."""
        remembered = self._read()
        kept = {name: remembered[name] for name in named if name in remembered}
        if kept != remembered:
            with suppress(OSError):  # a full disk; the files are read again the next time
                write_atomically(self._memory, json.dumps(kept))

    def forget(self) -> None:
        """Forget the group, e.g. because its files were removed."""
        self._memory.unlink(missing_ok=True)

    def _look(self, path: Path, known: Seen | None) -> Seen | None:
        state = _state(path)
        if state is None or (known and known[:3] == state):
            return known if state else None
        return (*state, _digest(path))

    def _read(self) -> dict[str, Seen]:
        with suppress(OSError, ValueError, TypeError):
            found = json.loads(self._memory.read_bytes())
            return {name: (int(a), int(b), int(c), str(d)) for name, (a, b, c, d) in found.items()}
        return {}

    def _remember(self, remembered: Mapping[str, Seen], seen: Mapping[str, Seen]) -> None:
        # The others stay: some of the files may be asked for alone.
        if (now := {**remembered, **seen}) != remembered:
            with suppress(OSError):  # a full disk; the files are read again the next time
                write_atomically(self._memory, json.dumps(now))


class SealedFile:
    """A file with its digest next to it, and what was seen of it when it was last read, in `<name>.json`.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seal = path.with_suffix(".json")

    def seal(self, fresh: Path) -> None:
        """Write the digest of the file that is about to be renamed to `path`; a rename changes nothing of its state."""
        state = _state(fresh)
        assert state is not None, f"{fresh} was just written"
        write_atomically(self._seal, json.dumps([*state, file_digest(fresh)]))

    def wrong(self, *, thorough: bool = False) -> WrongFile | None:
        """What is wrong with the file, if anything; a file without a digest counts as changed."""
        state = _state(self.path)
        try:
            size, time, inode, digest = json.loads(self._seal.read_bytes())
        except (OSError, ValueError, TypeError):
            return WrongFile(self.path, "no digest", "unknown" if state else "")
        if state is None or (state == (size, time, inode) and not thorough):
            return None if state else WrongFile(self.path, str(digest), "")
        found = _digest(self.path)
        if found != digest:
            return WrongFile(self.path, str(digest), found)
        if state != (size, time, inode):
            with suppress(OSError):  # it is read again the next time
                write_atomically(self._seal, json.dumps([*state, digest]))
        return None


def prune_checked(workspace: Workspace, kind: str, keep: Iterable[str]) -> None:
    """Forget the groups of a kind, e.g. `artefacts`, that are not among `keep`."""
    root, kept = workspace.checked / kind, set(keep)
    for memory in [path for path in below(root) if path.suffix == ".json"]:
        if memory.relative_to(root).with_suffix("").as_posix() not in kept:
            memory.unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:  # it was removed meanwhile, is a folder, or the disk cannot read it: all are damage
        return "unreadable"
