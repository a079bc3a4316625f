"""Finding artefacts, by words or by digest, and reading their lineage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from stella_assets.core.errors import MissingResultError, UserError
from stella_assets.core.lineage import Node, input_names, setup, walk
from stella_assets.core.manifest import Manifest
from stella_assets.storage.artefacts import MANIFEST, finished
from stella_assets.storage.releases import Releases
from stella_assets.storage.workspace import Workspace

__all__ = ["Node", "TraceError", "Tracer", "setup", "walk"]

# Six digits tell 16 million artefacts apart; keys have 16 digits and digests 32.
DIGEST = re.compile(r"[0-9a-f]{6,32}")

Tagged = Callable[[str], Mapping[str, Path]]
"""Folders of artefacts that have a tag, by tag, of a recipe."""


class TraceError(UserError):
    """Words that name no artefact, or several."""


class MissingArtefactError(TraceError, MissingResultError):
    """Words that name an artefact that is not there."""


class Tracer:
    """Finds artefacts and reads their lineage from the manifests of a workspace.

    Args:
        workspace: Where artefacts are stored. A tracer remembers what it has read, so it serves one command or less.

    Example:
        >>> node = Tracer(workspace).find("demo/release")
        >>> list(node.all)  # everything that it depends on, inputs first
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._nodes: dict[tuple[str, str], Node] = {}
        self._folders: dict[str, dict[str, Path]] = {}

    def find(self, words: str, *, default: str = "", tagged: Tagged = lambda _recipe: {}) -> Node:
        """The artefact that a person means.

        Args:
            words: `RECIPE/ASSET` for what the recipe has now, `RECIPE@NAME` for a release that was promoted or a
                tagged artefact, a recipe alone for its default asset, a folder, or six digits or more of a digest or
                key.
            default: The asset that a recipe alone stands for.
            tagged: The artefacts of a recipe that have a tag, in addition to its releases.

        Returns:
            The artefact, with its lineage.

        Raises:
            TraceError: The words name no artefact, or several.
        """
        for folder in (Path(words), self._workspace.root / words, self._workspace.root / words / default):
            if (folder / MANIFEST).is_file():
                # Resolved: a link of a recipe and the artefact's own folder give the same node.
                return self.of_folder(folder.resolve())
        recipe, at, name = words.partition("@")
        if at:
            return self._of_name(recipe, name, tagged(recipe))
        # Last, because it reads every manifest, and because a recipe may be called e.g. `facade`.
        found = self._by_digits(words) if DIGEST.fullmatch(words) else []
        if len(found) == 1:
            return self.of_folder(found[0])
        if found:
            shown = ", ".join(str(folder.relative_to(self._workspace.artefacts)) for folder in found)
            raise TraceError(f"{words}: {len(found)} artefacts begin with these digits: {shown}.", "Give more of them.")
        raise MissingArtefactError(
            f"{words}: there is no such artefact in {self._workspace.root}.",
            "Give RECIPE/ASSET as `stella status RECIPE` lists them, RECIPE@RELEASE, a folder, or six digits of a "
            "digest.",
        )

    def _of_name(self, recipe: str, name: str, tagged: Mapping[str, Path]) -> Node:
        releases = Releases(self._workspace, recipe)
        if name in releases.names():
            return self.of_folder(releases.folder(name))
        folders = [folder for tag, folder in tagged.items() if name and tag.startswith(name)]
        if len(folders) == 1:
            return self.of_folder(folders[0])
        if folders:
            shown = ", ".join(tag for tag in tagged if tag.startswith(name))
            raise TraceError(f"{recipe}@{name}: {len(folders)} snapshots begin with this: {shown}.", "Give more of it.")
        known = ", ".join([*releases.names(), *tagged])
        raise MissingArtefactError(
            f"{recipe}@{name}: no release or snapshot of this name.",
            f"Recipe {recipe!r} has {known}." if known else f"Recipe {recipe!r} has none yet.",
        )

    def _by_digits(self, digits: str) -> list[Path]:
        return [
            folder
            for folder in finished(self._workspace)
            if folder.name.startswith(digits) or _digest_of(folder).startswith(digits)
        ]

    def of_folder(self, folder: Path) -> Node:
        """The node of an artefact, by its folder.

        Raises:
            ManifestError: Its manifest, or one of those that it depends on, is damaged.
        """
        manifest = Manifest.read(folder / MANIFEST)
        known = self._nodes.get((manifest.identity.asset, manifest.digest))
        if known is not None:
            return known
        # Terminates: a digest covers the digests of the inputs, so lineage cannot have a cycle.
        digests = manifest.identity.inputs
        inputs = tuple(self.of_digest(name, digests[name]) for name in input_names(manifest))
        node = Node(manifest.identity.asset, manifest.digest, folder, manifest, inputs)
        self._nodes[node.name, node.digest] = node
        return node

    def join(self, folders: Iterable[Path], name: str = "", digest: str = "") -> Node:
        """A node without a manifest, for what is being made of these artefacts: its own folder is not finished yet."""
        return Node(name, digest, inputs=tuple(map(self.of_folder, folders)))

    def of_digest(self, name: str, digest: str) -> Node:
        """The node of an artefact, by its data version; without a manifest where its files are gone.

        Args:
            name: What the artefact is called, usually its family.
            digest: The data version.
        """
        folder = self.folder_of(digest, name)
        if folder:
            return self.of_folder(folder)
        return self._nodes.setdefault((name, digest), Node(name, digest))

    def folder_of(self, digest: str, family: str = "") -> Path | None:
        """Where the artefact with a data version is stored; None where its files are gone.

        Args:
            digest: The data version.
            family: Where to look first. An artefact may be called otherwise by what uses it, so all are searched then.
        """
        for assets in dict.fromkeys([family or "**", "**"]):
            if assets not in self._folders:
                self._folders[assets] = {_digest_of(folder): folder for folder in finished(self._workspace, assets)}
            if digest in self._folders[assets]:
                return self._folders[assets][digest]
        return None


def _digest_of(folder: Path) -> str:
    """The data version that a manifest states; empty for a damaged one, which no digest names."""
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["digest"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return ""
