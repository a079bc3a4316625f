"""What two artefacts differ in: settings, sources, texts, vectors, code, libraries, machine, figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from stella_assets.core.manifest import changed_values
from stella_assets.core.trace import Node, setup
from stella_assets.storage.errors import MissingSnapshotError
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.catalogue import compare
from stella_assets.teachers.snapshot import Snapshot
from stella_assets.teachers.tables import SNAPSHOTS_ASSET

Kind = Literal["asset", "code", "setting", "source", "texts", "vectors", "environment", "figure", "content"]


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        kind: Its kind.
        asset: The artefact that has it.
        what: Its name: the path of a setting, a source, a library.
        before: In the first artefact.
        now: In the second.
    """

    kind: Kind
    asset: str
    what: str
    before: Any
    now: Any


def differences(before: Node, now: Node, workspace: Workspace) -> list[Difference]:
    """What two artefacts differ in; causes first, figures last.

    An artefact that differs only because something that it depends on does is not named.

    Args:
        before: The first.
        now: The second.
        workspace: Where both are, with the snapshots of their vectors.

    Returns:
        The differences; empty for two artefacts with equal lineages.

    Example:
        >>> for found in differences(before, now, workspace):
        ...     print(found.kind, found.asset, found.what, found.before, found.now)
    """
    # By name: the two may be of different recipes or versions of the code, so no graph matches them.
    old, new = before.all, now.all
    found: list[Difference] = []
    for name in dict.fromkeys([*old, *new]):
        if name not in new or name not in old:
            found.append(Difference("asset", name, "", _digest(old.get(name)), _digest(new.get(name))))
        elif old[name].digest != new[name].digest:
            found += _of_artefact(old[name], new[name])
    # The manifest has only the snapshot's tag; the texts behind it are compared in the store.
    if SNAPSHOTS_ASSET in old and SNAPSHOTS_ASSET in new and old[SNAPSHOTS_ASSET].digest != new[SNAPSHOTS_ASSET].digest:
        found += _of_snapshots(old[SNAPSHOTS_ASSET], new[SNAPSHOTS_ASSET], workspace)
    found += setup_differences(before, now)
    found += _of_metrics(before, now)
    return found


def _digest(node: Node | None) -> str | None:
    return node.digest[:12] if node else None


def _of_artefact(before: Node, now: Node) -> list[Difference]:
    """Differences of two artefacts of one asset that the artefacts that they depend on do not explain."""
    if before.manifest is None or now.manifest is None:
        return [Difference("content", now.name, "files are gone", _digest(before), _digest(now))]
    old, new = before.manifest.identity, now.manifest.identity
    found: list[Difference] = []
    if old.code_version != new.code_version:
        found.append(Difference("code", now.name, "code version", old.code_version, new.code_version))
    found += [
        Difference("setting", now.name, path, *values)
        for path, values in changed_values(old.settings, new.settings).items()
    ]
    # The order of the first artefact, then what only the second one has; a set would have no stable order.
    names = dict.fromkeys([*before.sources, *now.sources])
    pairs = {name: (before.sources.get(name), now.sources.get(name)) for name in names}
    found += [Difference("source", now.name, name, *_short(pair)) for name, pair in pairs.items() if pair[0] != pair[1]]
    # Other bytes of equal inputs: nothing but chance, hardware or damage is left to explain them.
    if not found and dict(old.inputs) == dict(new.inputs):
        outputs = changed_values(before.manifest.outputs, now.manifest.outputs)
        found += [Difference("content", now.name, file, *_short(pair)) for file, pair in outputs.items()]
    return found


def _short(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    before, now = (value[:12] if isinstance(value, str) else value for value in pair)
    return before, now


def _of_snapshots(before: Node, now: Node, workspace: Workspace) -> Iterator[Difference]:
    """Texts by source, and teachers, that only one snapshot has."""
    try:
        old, new = (
            Snapshot.open(workspace, node.manifest.identity.settings["table"], node.manifest.identity.key)
            for node in (before, now)
            if node.manifest
        )
        found = compare(old, new)
    except MissingSnapshotError:
        yield Difference("vectors", SNAPSHOTS_ASSET, "a snapshot is gone", _digest(before), _digest(now))
        return
    for row in found["texts"]:
        for change in ("added", "removed", "changed"):
            if row[change]:
                yield Difference("texts", SNAPSHOTS_ASSET, f"{row['source']}, {change}", None, row[change])
    for row in found["teachers"]:
        # A kept teacher has the same fingerprint: it gives equal vectors for equal texts.
        if row["verdict"] != "kept":
            yield Difference("vectors", SNAPSHOTS_ASSET, row["teacher"], row["before"], row["now"])


def setup_differences(before: Node, now: Node) -> Iterator[Difference]:
    """Code, libraries and machine: those that any part of the two was made with.

    Args:
        before: The first artefact.
        now: The second.

    Yields:
        One difference per name whose versions are not the same.
    """
    old, new = setups(before), setups(now)
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield Difference("environment", "", name, *(", ".join(each.get(name, ())) for each in (old, new)))


def setups(node: Node) -> dict[str, list[str]]:
    """Versions of code, libraries and machine that an artefact and everything that it depends on were made with.

    Args:
        node: The artefact.

    Returns:
        The versions by name, e.g. of `python` or `torch`, each once.
    """
    # Parts may have been made on different machines and days, so each name has a list of values.
    found: dict[str, dict[str, None]] = {}
    for each in node.all.values():
        for name, value in setup(each.run_info).items():
            found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}


def _of_metrics(before: Node, now: Node) -> Iterator[Difference]:
    """Figures that both have."""
    old, new = (node.manifest.metrics if node.manifest else {} for node in (before, now))
    for name in old:
        pair = old[name], new.get(name)
        if pair[0] != pair[1] and all(isinstance(value, int | float) for value in pair):
            yield Difference("figure", now.name, name, *pair)
