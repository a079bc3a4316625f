"""What garbage collection must keep: what a live recipe uses now, and what a release was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stella_assets.teachers.encode import REFERENCE
from storage.artefacts import MANIFEST, finished
from storage.garbage import Needed
from storage.home import Home


def needed(home: Home) -> Needed:
    """What the recipes of this home folder use now, and what its releases rest on.

    A recipe is live while its folder of links is there.
    """
    snapshots: set[tuple[str, str]] = set()
    teachers: list[Path] = []
    for link in home.root.glob("*/concatenated_vectors"):
        if link.parent != home.artefacts:
            snapshots.add((link.parent.name, link.resolve().name))
    teachers += [link for link in home.root.glob("*/teacher_vectors/*") if link.parent.parent != home.artefacts]
    by_digest = _by_digest(home)
    for release in finished(home, "release"):
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


def _by_digest(home: Home) -> dict[str, tuple[Path, dict[str, Any]]]:
    folders = [*finished(home, "concatenated_vectors"), *finished(home, "teacher_vectors/*")]
    return {manifest["digest"]: (folder, manifest) for folder in folders for manifest in [_manifest(folder)]}


def _manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
