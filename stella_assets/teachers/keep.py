"""What garbage collection must keep: what a live recipe uses now, and what a release was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.workspace import Workspace

from stella_assets.teachers.encode import REFERENCE
from storage.artefacts import MANIFEST, finished
from storage.garbage import Needed


def needed(workspace: Workspace) -> Needed:
    """What the recipes of this workspace folder use now, and what its releases rest on.

    A recipe is live while its folder of links is there.
    """
    snapshots: set[tuple[str, str]] = set()
    teachers: list[Path] = []
    for link in workspace.root.glob("*/concatenated_vectors"):
        if link.parent != workspace.artefacts:
            snapshots.add((link.parent.name, link.resolve().name))
    teachers += [
        link for link in workspace.root.glob("*/teacher_vectors/*") if link.parent.parent != workspace.artefacts
    ]
    by_digest = _by_digest(workspace)
    for release in finished(workspace, "release"):
        for name, digest in _manifest(release)["identity"]["inputs"].items():
            artefact = by_digest.get(digest)
            if artefact is None:
                continue
            folder, manifest = artefact
            if name == "concatenated_vectors":
                snapshots.add((manifest["identity"]["settings"]["table"], folder.name))
            elif name.startswith("teacher_vectors/"):
                teachers.append(folder)
    references = [json.loads((folder / REFERENCE).read_text()) for folder in teachers if (folder / REFERENCE).is_file()]
    return Needed({f for reference in references for f in reference["fingerprints"].values()}, snapshots)


def _by_digest(workspace: Workspace) -> dict[str, tuple[Path, dict[str, Any]]]:
    folders = [*finished(workspace, "concatenated_vectors"), *finished(workspace, "teacher_vectors/*")]
    return {manifest["digest"]: (folder, manifest) for folder in folders for manifest in [_manifest(folder)]}


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
