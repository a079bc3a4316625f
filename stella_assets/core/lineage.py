"""The lineage of an artefact: everything that it depends on, down to sources, as manifests say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stella_assets.core.manifest import LIBRARIES, Manifest

SOURCE = "source:"
"""Before the name of an input from outside the pipeline, in a manifest."""


@dataclass(frozen=True, eq=False)
class Node:
    """An artefact and what it was made of.

    Nodes are compared by identity: a `Tracer` makes one per artefact, and shared inputs are shared objects.

    Attributes:
        name: The family of its step, e.g. `stage_1`.
        digest: The data version.
        folder: Where it is stored; None where its files are gone.
        manifest: What it says of itself; None where its files are gone.
        inputs: The artefacts that it was made of. One that several depend on is one object.
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

    @property
    def named_inputs(self) -> dict[str, Node]:
        """The artefacts that it was made of, by what its manifest calls them."""
        if self.manifest:
            return dict(zip(input_names(self.manifest), self.inputs, strict=True))
        named: dict[str, Node] = {}
        for each in self.inputs:
            named[each.name if each.name not in named else f"{each.name} {each.digest[:8]}"] = each
        return named

    @cached_property
    def labels(self) -> dict[Node, str]:
        """A name of its own for each artefact of `all`, nearest first.

        The nearest artefact of a family has the family's name. One that is further away, e.g. the `stage_2` of another
        seed, has the label of what uses it in front: `scores/seed_1: stage_2`.
        """
        labels, prefixes = {self: self.name}, {self: ""}
        queue = [self]
        # Breadth first, so that the nearest artefact of a family gets its plain name.
        for node in queue:  # grows while it is read: level by level
            for name, each in node.named_inputs.items():
                if each in labels:
                    continue
                taken = f"{prefixes[node]}{name}" in labels.values()
                prefixes[each] = f"{labels[node]}: " if taken else prefixes[node]
                labels[each] = f"{prefixes[each]}{name}"
                queue.append(each)
        return labels

    @cached_property
    def all(self) -> dict[str, Node]:
        """The artefact and everything that it depends on, by label, inputs first."""
        # A dict is a set that keeps its order; depth first puts inputs before what uses them.
        ordered: dict[Node, None] = {}

        def visit(node: Node) -> None:
            if node not in ordered:
                for each in node.inputs:
                    visit(each)
                ordered[node] = None

        visit(self)
        # Two passes: labels are given nearest first, and the order is inputs first.
        return {self.labels[node]: node for node in ordered}

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Labels of an artefact and of one that was made of it, of all that it depends on."""
        return [(self.labels[each], label) for label, node in self.all.items() for each in node.inputs]

    @property
    def seconds(self) -> float:
        """How long making it and everything that it depends on took."""
        return sum(float(node.run_info.get("seconds", 0)) for node in self.all.values())

    def identities(self) -> dict[str, dict[str, Any]]:
        """Digest and identity of the artefact and of everything that it depends on, by label, and its cost.

        Two equal runs give equal identities.
        """
        return {
            name: {"digest": node.digest, **asdict(node.manifest.identity), **_cost(node)}
            for name, node in self.all.items()
            if node.manifest
        }

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values, for scripts.

        Returns:
            `asset`, `digest`, `seconds`, and `artefacts` by label, inputs first.
        """
        return {
            "asset": self.name,
            "digest": self.digest,
            "seconds": round(self.seconds, 2),
            "artefacts": {name: _describe(node) for name, node in self.all.items()},
        }


def input_names(manifest: Manifest) -> list[str]:
    """What a manifest calls the artefacts that it was made of."""
    return [name for name in manifest.identity.inputs if not name.startswith(SOURCE)]


def _cost(node: Node) -> dict[str, Any]:
    """What others were paid for an artefact; empty where nobody was."""
    assert node.manifest is not None, "only those with a manifest are asked"
    cost = node.manifest.metrics.get("cost")
    return {"cost": dict(cost)} if cost else {}


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
        "inputs": {name: each.digest for name, each in node.named_inputs.items()},
        "sources": node.sources,
        "metrics": node.manifest.metrics,
        "run_info": node.run_info,
    }


def setup(run_info: Mapping[str, Any]) -> dict[str, Any]:
    """Code, libraries and machine that something was made with."""
    names = ("commit", "python", *LIBRARIES, "machine", "cpu", "threads")
    return {name: run_info[name] for name in names if name in run_info}


def walk(node: Node) -> Iterator[tuple[int, Node, bool]]:
    """The tree from an artefact to its sources.

    Args:
        node: Where to begin.

    Yields:
        Depth, 0 for `node`; the node; and whether it was already shown further up, where its inputs are listed.
    """
    seen: set[Node] = set()

    def visit(at: Node, depth: int) -> Iterator[tuple[int, Node, bool]]:
        again = at in seen
        seen.add(at)
        yield depth, at, again
        # Shared inputs are expanded once: a full expansion grows exponentially with the depth.
        if not again:
            for each in at.inputs:
                yield from visit(each, depth + 1)

    return visit(node, 0)
