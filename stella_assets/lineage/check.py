"""Whether a release is what it says it is: its recipe, code, sources and stored bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stella_assets.core.manifest import Manifest, changed_values, environment, file_digest, plain
from stella_assets.core.trace import Node
from stella_assets.lineage.difference import Difference, setups
from stella_assets.lineage.match import match_steps
from stella_assets.recipe import Graph
from stella_assets.storage.database import table_names
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.garbage import live_vectors
from stella_assets.teachers.tables import SNAPSHOT, VECTORS
from stella_assets.training.stage import START


def mismatches(release: Node, graph: Graph, workspace: Workspace) -> list[Difference]:
    """Where recipe, code, sources, libraries and machine of now differ from those of the release.

    Args:
        release: The release and everything that it depends on.
        graph: Of its recipe, as it is now.
        workspace: Where the release is.

    Returns:
        The differences: those of kind `environment` do not stop a reproduction, all others would make another release.

    Raises:
        UserError: A source or a teacher does not exist, or cannot be read.
    """
    found: list[Difference] = []
    nodes = match_steps(graph.released(release.name), release)
    # A step that the recipe lost since is in the lineage, but no step of the graph is matched with it.
    matched = set(nodes.values())
    for name, node in release.all.items():
        if node not in matched:
            found.append(Difference("asset", name, "", node.digest[:12], None))
    for step, known in nodes.items():
        if known is None or known.manifest is None:
            found.append(Difference("asset", step.name, "", known.digest[:12] if known else None, "in the recipe"))
            continue
        identity = known.manifest.identity
        if identity.code_version != step.code_version:
            found.append(Difference("code", step.name, "code version", identity.code_version, step.code_version))
        settings = changed_values(identity.settings, plain(step.settings))
        found += [Difference("setting", step.name, path, *two) for path, two in settings.items()]
        sources = dict(step.external_versions(workspace)) if step.external_versions else {}
        sources.pop(START, None)  # a reproduction begins with the weights that the release began with
        # The same on both sides, so it is never listed.
        sources |= {START: known.sources[START]} if START in known.sources else {}
        changed = changed_values(known.sources, sources)
        found += [Difference("source", step.name, path, *two) for path, two in changed.items()]
    then, now = setups(release), environment()
    return found + [
        Difference("environment", "", name, ", ".join(values), now[name])
        for name, values in then.items()
        if name != "threads" and values != [now.get(name)]  # they are known when libraries are loaded
    ]


def damages(release: Node, workspace: Workspace) -> Iterator[Difference]:
    """What of a release's lineage is not as it was made: files by their digests, vectors by the store's.

    Every file and every table is read, so the time grows with the size of the store.

    Args:
        release: The release and everything that it depends on.
        workspace: Where it is.

    Yields:
        One difference per missing file, file with other bytes, or damaged place of a table.
    """
    # Each table once: many artefacts depend on the same teachers.
    damaged = {name: verify_table(workspace, name).damages for name in table_names(workspace)}
    for name, node in release.all.items():
        if node.manifest is None or node.folder is None:
            yield Difference("content", name, "its files are gone", node.digest[:12], None)
            continue
        if wrong := list(_wrong_files(name, node.folder, node.manifest)):
            yield from wrong
            continue  # what it says of vectors may be wrong, too
        needed = live_vectors([node.folder])
        for fingerprint in sorted(needed.fingerprints):
            for damage in damaged.get(VECTORS + fingerprint, ()):
                yield Difference("vectors", name, f"{damage.table}, {damage.place}", None, damage.what)
        for recipe, tag in sorted(needed.snapshots):
            for damage in damaged.get(recipe + SNAPSHOT, ()):
                # Damage that names no tag may concern any version of the table.
                if not damage.tags or tag in damage.tags:
                    yield Difference("vectors", name, f"{damage.table}, {damage.place}", None, damage.what)


def _wrong_files(name: str, folder: Path, manifest: Manifest) -> Iterator[Difference]:
    for file, digest in manifest.files.items():
        path = folder / file
        now = file_digest(path) if path.is_file() else None
        if now != digest:
            yield Difference("content", name, str(path), digest[:12], now and now[:12])
