"""What the vector store holds, from the metadata of its tables and snapshots."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.errors import MissingSnapshotError
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.known_vectors import describe_known
from stella_assets.teachers.snapshot import Layout, Snapshot, current_snapshot, snapshot_tags
from stella_assets.teachers.tables import SNAPSHOT, SNAPSHOTS_ASSET, VECTORS, snapshot_tables, teacher_tables
from stella_assets.teachers.vectors import ABOUT, COLUMN


def list_teachers(workspace: Workspace) -> list[dict[str, Any]]:
    """Each teacher's table: fingerprint, name, model, prompt, dimensions, rows, MiB."""
    rows = []
    for name in teacher_tables(table_names(workspace)):
        dataset = open_table(workspace, name)
        # A writer was killed before its first commit, or garbage collection has just removed the table.
        if dataset is None:
            continue
        about = _teacher(dataset)
        rows.append(
            {
                "fingerprint": name.removeprefix(VECTORS),
                "teacher": about.get("name"),
                # A fitted teacher has no model outside its artefact.
                "model": about.get("model") or about.get("kind"),
                "prompt": about.get("prompt") or "",
                "dtype": about.get("dtype") or "",
                "dim": dataset.schema.field(COLUMN).type.list_size,
                "rows": int(dataset.count_rows()),
                "MiB": round(_bytes(dataset) / 2**20, 1),
            }
        )
    return rows


def list_snapshots(workspace: Workspace) -> list[dict[str, Any]]:
    """Each recipe's snapshots, oldest first: tag, version, rows, teachers, MiB of its own table's files."""
    rows = []
    for name in snapshot_tables(table_names(workspace)):
        recipe = name.removesuffix(SNAPSHOT)
        current = workspace.current(recipe, SNAPSHOTS_ASSET)
        now = current.resolve().name if current.exists() else ""
        for tag, version in snapshot_tags(workspace, recipe).items():
            snapshot = Snapshot.open(workspace, recipe, tag)
            layout = snapshot.layout
            rows.append(
                {
                    "recipe": recipe,
                    "tag": tag,
                    "version": version,
                    "rows": len(snapshot),
                    "dim": layout.dim,
                    "teachers": ", ".join(f"{name} {_joined(layout, name)}" for name in layout.teachers),
                    "MiB": round(_bytes(snapshot.dataset) / 2**20, 1),
                    "current": "yes" if tag == now else "",
                }
            )
    return rows


def _bytes(dataset: Any) -> int:
    """Bytes of the data files of a version."""
    return sum(file.file_size_bytes or 0 for fragment in dataset.get_fragments() for file in fragment.data_files())


def _teacher(dataset: Any) -> dict[str, Any]:
    return dict(json.loads(dataset.schema.metadata[ABOUT.encode()]))


def open_snapshot(workspace: Workspace, name: str) -> Snapshot:
    """A snapshot by `RECIPE` (the current one) or `RECIPE@TAG`; the first digits of a tag will do.

    Raises:
        MissingSnapshotError: There is no such snapshot, or several.
    """
    recipe, _, prefix = name.partition("@")
    tags = snapshot_tags(workspace, recipe)
    if not tags:
        known = ", ".join(table.removesuffix(SNAPSHOT) for table in snapshot_tables(table_names(workspace))) or "none"
        raise MissingSnapshotError(
            f"{name}: recipe {recipe!r} has no snapshot in {workspace.vectors}; it has those of {known}."
        )
    if not prefix:
        return Snapshot.open(workspace, recipe, current_snapshot(workspace, recipe))
    found = [tag for tag in tags if tag.startswith(prefix)]
    if len(found) != 1:
        raise MissingSnapshotError(f"{name}: {len(found)} snapshots begin with {prefix}; there are {', '.join(tags)}.")
    return Snapshot.open(workspace, recipe, found[0])


def describe(workspace: Workspace, name: str) -> dict[str, Any]:
    """What a snapshot (`RECIPE` or `RECIPE@TAG`) or a teacher's table (its fingerprint) states in its metadata.

    Raises:
        MissingSnapshotError: There is no such table or snapshot.
    """
    # A fingerprint is tried first; a recipe of that name can still be given as RECIPE@TAG.
    if VECTORS + name in table_names(workspace):
        dataset = open_table(workspace, VECTORS + name)
        return {
            "table": VECTORS + name,
            "teacher": _teacher(dataset),
            "known_vectors": describe_known(workspace, VECTORS + name),
            "rows": int(dataset.count_rows()),
            "units": len(dataset.get_fragments()),
            "version": int(dataset.version),
            "bytes": _bytes(dataset),
        }
    snapshot = open_snapshot(workspace, name)
    dataset = snapshot.dataset
    return {
        "uri": dataset.uri,
        "version": snapshot.version,
        "rows": len(snapshot),
        "columns": {field.name: str(field.type) for field in dataset.schema},
        "layout": snapshot.layout.describe(),
        "fingerprints": snapshot.fingerprints,
        "lineage": snapshot.lineage,
        "units": len(dataset.get_fragments()),
        "bytes": _bytes(dataset),
    }


def compare(before: Snapshot, now: Snapshot) -> dict[str, list[dict[str, Any]]]:
    """How two snapshots of a recipe differ.

    Args:
        before: The older one.
        now: The newer one.

    Returns:
        `texts`: by source, how many were added, removed, kept, and changed in source, role, split or section.
        `teachers`: by teacher, dimensions, weight and fingerprints in both, and the verdict `added`, `removed`,
        `changed` or `kept`.
    """
    old, new = _sources(before), _sources(now)
    added, removed = ~np.isin(new[0], old[0]), ~np.isin(old[0], new[0])
    # Keys are sorted: `at` are the old rows of the texts that both snapshots have. Text and id need no comparison,
    # as an id is the hash of its text.
    at = np.searchsorted(old[0], new[0][~added])
    changed = (old[1][at] != new[1][~added]) | (old[2][at] != new[2][~added])
    texts = []
    for source in sorted({*old[1], *new[1]}):
        row = {
            "source": source,
            "added": int((new[1][added] == source).sum()),
            "removed": int((old[1][removed] == source).sum()),
            "changed": int((new[1][~added][changed] == source).sum()),
        }
        texts.append({**row, "kept": int((new[1] == source).sum()) - row["added"] - row["changed"]})
    teachers = []
    # A set would lose the order of the concatenation.
    for name in dict.fromkeys([*before.layout.teachers, *now.layout.teachers]):
        both = [_about_teacher(snapshot, name) for snapshot in (before, now)]
        verdict = "added" if both[0] is None else "removed" if both[1] is None else ""
        if not verdict:
            verdict = "kept" if both[0] == both[1] else "changed"
        teachers.append({"teacher": name, "before": both[0], "now": both[1], "verdict": verdict})
    return {"texts": texts, "teachers": teachers}


def _sources(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys ascending, and for each the source, and section, role and split of the text."""
    sources: list[str] = []
    rest: list[str] = []
    for batch in snapshot.scan(["source", "section", "role", "split"], 65_536):
        sources += batch.column(0).to_pylist()
        rest += ["/".join(row) for row in zip(*(batch.column(i).to_pylist() for i in (1, 2, 3)), strict=True)]
    # `dtype=object`: a fixed width would give every row the length of the longest name.
    return snapshot.keys, np.array(sources, dtype=object)[snapshot.order], np.array(rest, dtype=object)[snapshot.order]


def _about_teacher(snapshot: Snapshot, name: str) -> str | None:
    if name not in snapshot.layout.teachers:
        return None
    prints = ", ".join(f"{role} {f[:8]}" for role, f in sorted(snapshot.fingerprints[name].items()))
    return f"{_joined(snapshot.layout, name, ' dims')}: {prints}"


def _joined(layout: Layout, name: str, unit: str = "") -> str:
    """How a teacher is joined, e.g. `384 x 0.5, centred`."""
    centred = "" if layout.mean_of(name) is None else ", centred"
    return f"{layout.dim_of(name)}{unit} x {layout.weight_of(name):g}{centred}"
