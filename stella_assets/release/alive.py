"""What is alive: the artefacts that something can still need. Every collector of garbage asks here."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from stella_assets.core.intact import open_intact
from stella_assets.core.leases import Lease, leases, remove_expired
from stella_assets.core.manifest import Manifest
from stella_assets.core.trace import Node, Tracer
from stella_assets.corpus.shards import SHARDS_FILE, live_shards
from stella_assets.evaluation.ranking.scorer import FAMILY as RANKING_SCORES
from stella_assets.evaluation.tables import SCORES
from stella_assets.evaluation.task_scores import FAMILY as TASK_SCORES
from stella_assets.release.publish import RELEASE
from stella_assets.storage.artefacts import MANIFEST, finished
from stella_assets.storage.locks import file_lock
from stella_assets.storage.removal import COLLECTORS, finish_removals
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.garbage import REFERENCES, Needed, live_vectors
from stella_assets.training.stage import START
from stella_assets.training.start import read_start

NAMING = {*REFERENCES, SHARDS_FILE, SCORES.file}
"""Files of artefacts that name what is kept outside of their folders."""


def live_artefacts(workspace: Workspace, *, without: Collection[Path] = ()) -> set[Path]:
    """Folders of the artefacts that must stay, as `finished` names them.

    Alive are the artefacts that recipes link to, releases, the weights that recipes continue from, the inputs of builds
    that run or were interrupted, and everything that these depend on. Of a release that continued from another one, the
    weights that it began with are alive, so that it can be made again; what those weights depend on is not. Scores of
    single tasks are alive with the models' scores.

    Args:
        workspace: Where artefacts are stored.
        without: Releases that are about to be removed: they keep nothing alive.

    Raises:
        DamagedArtefactError: One of them names what is kept elsewhere, and is damaged: nothing tells what it needs.
    """
    tracer = Tracer(workspace)
    releases = [folder for folder in finished(workspace, RELEASE) if folder not in without]
    roots = [*linked_artefacts(workspace), *releases, *_starts(workspace, tracer), *_inputs_of_builds(workspace)]
    nodes: set[Node] = {node for folder in roots for node in tracer.of_folder(folder).all.values()}
    # Only the folder, not its lineage: else a chain of continued releases would keep every corpus for ever.
    begun_with = [tracer.folder_of(digest) for node in nodes if (digest := node.sources.get(START))]
    live = {folder for folder in (*begun_with, *(node.folder for node in nodes)) if folder}
    _require_intact(workspace, live)
    return live | set(_scores_of_tasks(workspace, live))


def needed_vectors(workspace: Workspace, *, without: Collection[Path] = ()) -> Needed:
    """What must stay of the vector store.

    Args:
        workspace: Where artefacts are stored.
        without: As for `live_artefacts`.

    Raises:
        DamagedArtefactError: An artefact that names vectors is damaged.
    """
    # Builds first: what one of them made is linked before its lease ends.
    in_use = bool(leases(workspace))
    return live_vectors(live_artefacts(workspace, without=without), in_use=in_use)


def needed_shards(workspace: Workspace, *, without: Collection[Path] = ()) -> Set[str] | None:
    """Keys of the shards that must stay; None while a build runs or was interrupted: then all of them.

    Args:
        workspace: Where artefacts are stored.
        without: As for `live_artefacts`.

    Raises:
        DamagedArtefactError: An artefact that names shards is damaged.
    """
    return None if leases(workspace) else live_shards(live_artefacts(workspace, without=without))


def linked_artefacts(workspace: Workspace) -> set[Path]:
    """Folders of the artefacts that some recipe has now."""
    stores, artefacts, found = workspace.stores, workspace.artefacts.resolve(), set()
    for folder, names, _files in os.walk(workspace.root):
        # In place, so that `os.walk` does not descend: the stores have many files and no recipe's links.
        names[:] = [name for name in names if Path(folder, name) not in stores and not name.startswith(".")]
        for link in (Path(folder, name) for name in names):
            target = link.resolve()
            # A folder in place of a link: the workspace was copied through its links.
            if not link.is_symlink() and (link / MANIFEST).is_file():
                identity = Manifest.read(link / MANIFEST).identity
                target = artefacts / identity.asset / identity.key
            # Other links may point anywhere. Without a manifest, the artefact is not finished or was removed.
            if target.is_relative_to(artefacts) and (target / MANIFEST).is_file():
                # The workspace may itself be reached through a link, so paths are given as `finished` gives them.
                found.add(workspace.artefacts / target.relative_to(artefacts))
    return found


@contextmanager
def collecting(workspace: Workspace) -> Iterator[Sequence[Lease]]:
    """Collect garbage, one collector at a time; what a killed one left is removed first.

    Args:
        workspace: Whose garbage.

    Yields:
        The builds that run or were interrupted. While there is one, tables and shards stay: what a build writes is
        linked by nothing until it ends.
    """
    with file_lock(workspace, COLLECTORS):
        finish_removals(workspace)
        remove_expired(workspace, linked=linked_artefacts(workspace))
        yield leases(workspace)


def _inputs_of_builds(workspace: Workspace) -> Iterator[Path]:
    for lease in leases(workspace):
        for folder in map(Path, lease.inputs):
            if (folder / MANIFEST).is_file() and folder.is_relative_to(workspace.artefacts):
                yield folder


def _starts(workspace: Workspace, tracer: Tracer) -> Iterator[Path]:
    """The weights that recipes continue from now."""
    for path in workspace.starts.glob("*.json"):
        start = read_start(workspace, path.stem)
        folder = tracer.folder_of(start.digest) if start else None
        if folder is not None:
            yield folder


def _require_intact(workspace: Workspace, live: Iterable[Path]) -> None:
    """Make sure that what the artefacts name of vectors, shards and scores is what was written."""
    for folder in live:
        if not NAMING.isdisjoint(Manifest.read(folder / MANIFEST).files):
            open_intact(workspace, folder)


def _scores_of_tasks(workspace: Workspace, live: Iterable[Path]) -> Iterator[Path]:
    """Scores of single tasks, of models that something alive was scored with."""
    files = [folder / SCORES.file for folder in live]
    tables = [pq.read_table(file, columns=["weights"]) for file in files if file.is_file()]
    # Single scores have no link. They are kept by weights: a model of another name with these may need them.
    weights = {each for table in tables for each in table.column(0).to_pylist()}
    for family in (TASK_SCORES, RANKING_SCORES):
        for folder in finished(workspace, f"{family}/*"):
            if Manifest.read(folder / MANIFEST).identity.settings["loader"]["weights"] in weights:
                yield folder
