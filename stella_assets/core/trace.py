"""Where an artefact comes from: all that it rests on, down to sources, as manifests tell it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.workspace import Workspace

from stella_assets.core.manifest import LIBRARIES, Manifest
from storage.artefacts import MANIFEST, finished
from storage.releases import Releases
from storage.snapshot import snapshot_tags

SOURCE = "source:"
DIGEST = re.compile(r"[0-9a-f]{6,32}")


class TraceError(ValueError):
    """A name that stands for no artefact, or for several."""


@dataclass(frozen=True, eq=False)
class Node:
    """An artefact and what it was made of.

    Attributes:
        name: The asset's.
        digest: The data version.
        folder: Where it lies; None where its files are gone.
        manifest: What it says of itself; None where its files are gone.
        inputs: The artefacts that it was made of. One that several rest on is one object.
    """

    name: str
    digest: str
    folder: Path | None = None
    manifest: Manifest | None = None
    inputs: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def sources(self) -> dict[str, str]:
        """Digests of what came from outside the pipeline, by name."""
        if self.manifest is None:
            return {}
        found = self.manifest.identity.inputs.items()
        return {name.removeprefix(SOURCE): value for name, value in found if name.startswith(SOURCE)}

    @property
    def run_info(self) -> Mapping[str, Any]:
        """When, where and with what it was made."""
        return self.manifest.run_info if self.manifest else {}

    @cached_property
    def all(self) -> dict[str, Node]:
        """It and all that it rests on, by asset, inputs first."""
        ordered: dict[str, Node] = {}
        for node in self.inputs:
            ordered.update((name, each) for name, each in node.all.items() if name not in ordered)
        return {**ordered, self.name: self}

    @property
    def seconds(self) -> float:
        """What making it and all that it rests on took."""
        return sum(float(node.run_info.get("seconds", 0)) for node in self.all.values())

    def identities(self) -> dict[str, dict[str, Any]]:
        """Digest and identity of it and of all that it rests on, by asset: nothing that two equal runs differ in."""
        return {
            name: {"digest": node.digest, **asdict(node.manifest.identity)}
            for name, node in self.all.items()
            if node.manifest
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values, for scripts."""
        return {
            "asset": self.name,
            "digest": self.digest,
            "seconds": round(self.seconds, 2),
            "artefacts": {name: _describe(node) for name, node in self.all.items()},
        }


def _describe(node: Node) -> dict[str, Any]:
    if node.manifest is None:
        return {"digest": node.digest, "gone": True}
    identity = node.manifest.identity
    return {
        "digest": node.digest,
        "key": identity.key,
        "folder": str(node.folder),
        "code_version": identity.code_version,
        "settings": identity.settings,
        "inputs": {each.name: each.digest for each in node.inputs},
        "sources": node.sources,
        "metrics": node.manifest.metrics,
        "run_info": node.run_info,
    }


def setup(about: Mapping[str, Any]) -> dict[str, Any]:
    """Code, libraries and machine that something was made with."""
    return {
        name: about[name] for name in ("commit", "python", *LIBRARIES, "machine", "cpu", "threads") if name in about
    }


class Tracer:
    """Reads lineage from the manifests of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._nodes: dict[tuple[str, str], Node] = {}
        self._folders: dict[str, dict[str, Path]] = {}

    def find(self, words: str) -> Node:
        """The artefact that a person means.

        Args:
            words: `RECIPE/ASSET` for what the recipe has now, `RECIPE@NAME` for a release that was promoted or a
                snapshot by its tag, a recipe alone for its release, a folder, or six digits or more of a digest or key.

        Raises:
            TraceError: They stand for no artefact, or for several.
        """
        for folder in (Path(words), self._workspace.root / words, self._workspace.root / words / "release"):
            if (folder / MANIFEST).is_file():
                return self.of_folder(folder.resolve())
        recipe, at, name = words.partition("@")
        if at:
            return self._of_name(recipe, name)
        found = self._by_digits(words) if DIGEST.fullmatch(words) else []
        if len(found) == 1:
            return self.of_folder(found[0])
        if found:
            shown = ", ".join(str(folder.relative_to(self._workspace.artefacts)) for folder in found)
            raise TraceError(f"{words}: {len(found)} artefacts begin with these digits: {shown}. Give more of them.")
        raise TraceError(
            f"{words}: there is no such artefact in {self._workspace.root}. Give RECIPE/ASSET as `stella status RECIPE` "
            "lists them, RECIPE@RELEASE, a folder, or six digits of a digest."
        )

    def _of_name(self, recipe: str, name: str) -> Node:
        releases = Releases(self._workspace, recipe)
        if name in releases.names():
            return self.of_folder(releases.folder(name))
        tags = [tag for tag in snapshot_tags(self._workspace, recipe) if name and tag.startswith(name)]
        folders = [folder for tag in tags if (folder := self._workspace.artefacts / "concatenated_vectors" / tag).is_dir()]
        if len(folders) == 1:
            return self.of_folder(folders[0])
        known = ", ".join([*releases.names(), *snapshot_tags(self._workspace, recipe)]) or "none"
        raise TraceError(f"{recipe}@{name}: no release or snapshot of this name; recipe {recipe!r} has {known}.")

    def _by_digits(self, digits: str) -> list[Path]:
        return [
            folder
            for folder in finished(self._workspace)
            if folder.name.startswith(digits) or _digest_of(folder).startswith(digits)
        ]

    def of_folder(self, folder: Path) -> Node:
        """The node of an artefact by its folder."""
        manifest = Manifest.read(folder / MANIFEST)
        known = self._nodes.get((manifest.identity.asset, manifest.digest))
        if known is not None:
            return known
        inputs = manifest.identity.inputs.items()
        node = Node(
            manifest.identity.asset,
            manifest.digest,
            folder,
            manifest,
            tuple(self.of_digest(name, value) for name, value in inputs if not name.startswith(SOURCE)),
        )
        self._nodes[node.name, node.digest] = node
        return node

    def of_digest(self, asset: str, digest: str) -> Node:
        """The node of an artefact by its data version; without a manifest where it is no longer there."""
        if asset not in self._folders:
            self._folders[asset] = {_digest_of(folder): folder for folder in finished(self._workspace, asset)}
        folder = self._folders[asset].get(digest)
        return self.of_folder(folder) if folder else Node(asset, digest)


def _digest_of(folder: Path) -> str:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["digest"]


def walk(node: Node) -> Iterator[tuple[int, Node, bool]]:
    """The tree from an artefact to its sources: depth, node, and whether it was there before, further up."""
    seen: set[Node] = set()

    def visit(at: Node, depth: int) -> Iterator[tuple[int, Node, bool]]:
        again = at in seen
        seen.add(at)
        yield depth, at, again
        if not again:
            for each in at.inputs:
                yield from visit(each, depth + 1)

    return visit(node, 0)
