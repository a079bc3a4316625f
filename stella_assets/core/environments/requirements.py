"""Requirements of an environment, each pinned to one version and to the digests of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed

FORM = "name==version --hash=sha256:..."
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(\[[\w\s,.-]*\])?\s*==\s*([\w.+!-]+)\s*(?:;\s*(.+))?", re.ASCII)
HASH = re.compile(r"sha256:[0-9a-f]{64}")
# pip begins a comment at the start of a line or after white space, so that URLs keep their fragment.
COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Requirement:
    """One package in one version.

    Attributes:
        name: In normal form: lower case, with hyphens.
        version: The only one that is accepted.
        marker: Where it holds, e.g. `sys_platform == 'linux'`; empty for everywhere.
        line: As it is given to the installer.
    """

    name: str
    version: str
    marker: str
    line: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def holds(self, python: str) -> bool:
        """Whether its marker is true on this machine, with a version of Python, e.g. `3.11`."""
        versions = {"python_version": python, "python_full_version": f"{python}.0"}
        return not self.marker or Marker(self.marker).evaluate(versions)


def normal_name(name: str) -> str:
    """A package's name as indexes compare it.

    Example:
        >>> normal_name("Sentence_Transformers")
        'sentence-transformers'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirements(lines: Iterable[str]) -> tuple[Requirement, ...]:
    """Read requirements in pip's format.

    Args:
        lines: Of a file, or one requirement each. Comments and continued lines are allowed, options are not.

    Returns:
        The requirements, in their order.

    Raises:
        ValueError: One is not pinned with `==` and a SHA-256, or is not a requirement at all.
    """
    found = tuple(_parse(line) for line in _joined(lines))
    if not found:
        raise ValueError("there is no requirement")
    return found


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Lines without comments, and those that end in a backslash together with the next one."""
    whole = ""
    # An item of a list may have several lines; whichever breaks lines for the installer breaks them here.
    for line in (line for item in lines for line in item.splitlines()):
        stripped = COMMENT.sub("", line).strip()
        whole += stripped.removesuffix("\\").rstrip() + " "
        if not stripped.endswith("\\"):
            if whole.strip():
                yield whole.strip()
            whole = ""
    if whole.strip():
        yield whole.strip()


def _parse(line: str) -> Requirement:
    if line.startswith("-"):
        # An index of the recipe's choice could serve other files; the installer's own settings name indexes.
        raise ValueError(f"{line!r} is an option; write {FORM}, and name indexes in the settings of pip or uv")
    words, *hashes = re.split(r"\s--hash[= ]", line)
    pinned = PINNED.fullmatch(words.strip())
    try:
        Parsed(words.strip())
    except InvalidRequirement:  # a version or a marker that installers cannot read
        pinned = None
    if pinned is None:
        raise ValueError(f"{words.strip()!r} does not name one version; write {FORM}")
    if not hashes:
        raise ValueError(f"{words.strip()!r} has no hash; write {FORM}")
    if wrong := [value for value in hashes if not HASH.fullmatch(value.strip())]:
        raise ValueError(f"{words.strip()!r} has the hash {wrong[0].strip()!r}, which is not a whole SHA-256")
    name, _, version, marker = pinned.groups()
    return Requirement(normal_name(name), version, (marker or "").strip(), line)
