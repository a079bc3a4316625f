"""Source kind `python_docs`: docstrings of the Python environment itself, real English that needs no connection."""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from inspect import cleandoc
from pathlib import Path
from typing import Literal

from pydantic import Field

from stella_assets.corpus.errors import SourceError
from stella_assets.corpus.sentences import first_sentence
from stella_assets.corpus.sources.base import SOURCES, RawText, Rows, SourceConfig, SourcePart
from stella_assets.storage.canonical import digest

# Tests and copies of other packages; site-packages lies inside the standard library's folder.
SKIPPED_FOLDERS = frozenset(
    {"tests", "test", "testing", "idlelib", "lib2to3", "site-packages", "__pycache__", "_vendor"}
)
STANDARD_LIBRARY = "python"

# Where prose ends: a numpydoc or Google section, a field list, an example, a directive, a table.
PROSE_END = re.compile(
    r"^\s*(?:>>>|:\w+[^:]*:|\.\. |[-=~^*+|]{3,}|(?:Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|"
    r"See Also|References|Attributes|Usage|Example usage|Shape|Keyword Args|Warnings?)\s*:{0,2}\s*$)",
    re.MULTILINE,
)


@SOURCES.register
class PythonDocs(SourceConfig):
    """Docstrings of the standard library (`python`) and of installed distributions, parsed and never imported.

    Example:
        Of `corpus.sources` in a recipe::

            {name: docs, kind: python_docs, packages: [python, numpy]}
    """

    kind: Literal["python_docs"]
    licence: str = Field(
        default="the licence of each distribution", description="in words: each text states its distribution's licence"
    )
    packages: tuple[str, ...] = Field(
        default=("python",), description="`python` for the standard library, and names of installed distributions"
    )
    first_sentence_queries: bool = Field(default=True, description="also take first sentences, as queries")

    def parts(self) -> list[SourcePart]:
        """All packages at their versions."""
        return [SourcePart(digest(package_versions(self.packages)))]

    def read(self, part: SourcePart) -> Rows:
        """The docstrings, package by package."""
        return docstring_texts(self.packages, queries=self.first_sentence_queries)

    def check(self) -> None:
        """Check that the packages are installed.

        Raises:
            SourceError: One is not.
        """
        package_versions(self.packages)


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """The version of each package; the standard library's is Python's own.

    Raises:
        SourceError: A package is not installed.
    """
    versions = {}
    for package in packages:
        try:
            versions[package] = platform.python_version() if package == STANDARD_LIBRARY else metadata.version(package)
        except (metadata.PackageNotFoundError, ValueError):  # the second where the name is empty
            raise SourceError(
                f"corpus source python_docs: package {package[:100]!r} is not installed in this environment.",
                "Install it with pip, or remove it from `packages`.",
            ) from None
    return versions


def docstring_texts(packages: Sequence[str], *, queries: bool) -> Iterator[RawText]:
    """Docstrings, package by package in the order given; the section is the package.

    A docstring is cut where its prose ends.

    Args:
        packages: `python` for the standard library, and names of installed distributions.
        queries: Also give the first sentence of each docstring that has more to say.

    Yields:
        Documents, each followed by its query, whose `parent` is the document's text.
    """
    for package in packages:
        licence = _licence(package)
        for root, path in _modules(package):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name, docstring in _docstrings(path):
                prose = _prose(docstring)
                origin = f"{module}.{name}" if name else module
                yield RawText(prose, package, "document", licence, origin)
                if queries:
                    sentence, rest = first_sentence(prose)
                    # Without a rest the query would equal its document.
                    if rest:
                        yield RawText(" ".join(sentence.split()), package, "query", licence, origin, parent=prose)


def _prose(docstring: str) -> str:
    """The docstring up to its first section, field list or example; a section's own title goes too."""
    text = cleandoc(docstring)
    end = PROSE_END.search(text)
    if end is None:
        return text
    before = text[: end.start()].rstrip()
    # The end is an underline, so the line before it is a section's title and not prose.
    if re.match(r"[-=~^*]{3,}", end.group().strip()):
        before = before.rpartition("\n")[0].rstrip()
    return before


def _modules(package: str) -> list[tuple[Path, Path]]:
    """(import root, file) of every module of a package, by name, without its tests."""
    if package == STANDARD_LIBRARY:
        root = Path(sysconfig.get_path("stdlib"))
        found = [(root, path) for path in root.rglob("*.py")]
    else:
        distribution = metadata.distribution(package)
        root = Path(str(distribution.locate_file("")))
        names = [
            Path(str(file)) for file in distribution.files or [] if file.suffix == ".py" and ".." not in file.parts
        ]
        found = [(root, root / name) for name in names]
    kept = [(base, path) for base, path in found if not SKIPPED_FOLDERS.intersection(path.relative_to(base).parts)]
    # By path within the root: the same order wherever Python is installed.
    return sorted(kept, key=lambda item: item[1].relative_to(item[0]).parts)


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module, its classes and functions, in the order of the file."""
    try:
        with warnings.catch_warnings():
            # Invalid escapes in other people's code are not for the reader of this log.
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, FileNotFoundError):
        # Templates, and files for other Python versions, cannot be parsed by this one.
        return
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        name, node = stack.pop()
        # `_prose` cleans the indentation itself, with `cleandoc`.
        docstring = ast.get_docstring(node, clean=False)  # type: ignore[arg-type]
        if docstring:
            yield name, docstring
        children = [
            n
            for n in ast.iter_child_nodes(node)
            if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        # Reversed, since the last one in is the first one out: names come in the order of the file.
        stack.extend((f"{name}.{child.name}" if name else child.name, child) for child in reversed(children))


def _licence(package: str) -> str:
    if package == STANDARD_LIBRARY:
        return "PSF-2.0"
    about = metadata.distribution(package).metadata.json
    # Some distributions put the whole text of the licence into the field; classifiers name it shortly.
    stated = str(about.get("license_expression") or about.get("license") or "")
    if stated and "\n" not in stated.strip():
        return stated.strip()
    classifiers = [str(c).rsplit(" :: ", 1)[-1] for c in about.get("classifier", []) if str(c).startswith("License ::")]
    return " AND ".join(classifiers) or "not stated"
