"""The artefact that a person means: by recipe, asset, release, snapshot, folder or digits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stella_assets.core.trace import Node, Tracer
from stella_assets.release.publish import RELEASE
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.snapshot import snapshot_tags
from stella_assets.teachers.tables import SNAPSHOTS_ASSET


def find_artefact(workspace: Workspace, words: str) -> Node:
    """The artefact that words name; see `Tracer.find`. A recipe alone stands for its release.

    Args:
        workspace: Where artefacts are.
        words: `RECIPE/ASSET`, `RECIPE`, `RECIPE@RELEASE`, `RECIPE@SNAPSHOT`, a folder, or digits of a digest.

    Raises:
        TraceError: The words name no artefact, or several.

    Example:
        >>> find_artefact(workspace, "demo@v1").all["corpus"].digest
    """

    def snapshots(recipe: str) -> Mapping[str, Path]:
        # A tag is the key of the artefact that wrote the snapshot. The tag stays when its artefact is removed.
        folders = {tag: workspace.artefacts / SNAPSHOTS_ASSET / tag for tag in snapshot_tags(workspace, recipe)}
        return {tag: folder for tag, folder in folders.items() if folder.is_dir()}

    return Tracer(workspace).find(words, default=RELEASE, tagged=snapshots)
