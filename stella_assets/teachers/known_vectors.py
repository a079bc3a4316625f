"""Known vectors: what a teacher makes of a few fixed texts is compared before any vector is stored.

A model can be loaded wrongly without an error, e.g. with tables of positions that no file holds. So it is loaded a
second time in a process of its own, which must give the same vectors of the probe; that process also compares them with
those of the authors' library, and with cosines that the recipe states. The probe's vectors are kept with the teacher's
table and compared whenever it is opened for writing.

Shapes: P texts of the probe, D dimensions of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.storage.canonical import digest
from stella_assets.storage.files import write_atomically
from stella_assets.storage.notes import read_note, write_note
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.examination import PROBE, KnownVectorsError, require_cosines, require_same, tolerance
from stella_assets.teachers.kinds.base import Role, TeacherConfig, TeacherModel
from stella_assets.teachers.second_process import examine_in_second_process
from stella_assets.teachers.tables import VECTORS

NOTE = "known_vectors.json"
"""Of a teacher's table: the probe's vectors, and what they were made with."""
_examined: dict[str, Mapping[Role, np.ndarray]] = {}
"""What second processes found that this process started or read of, by the name of `examined_file`."""
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers")
"""Their versions are kept with the vectors: another one may compute other vectors."""


def require_examined(
    teacher: TeacherConfig, folder: Path, compute: Compute, workspace: Workspace, say: Callable[[str], None]
) -> Mapping[Role, np.ndarray]:
    """Vectors of the probe from a second process, by role; it is started once per model, libraries and workspace.

    To call before this process loads the model: the two would not fit into the memory of one GPU.

    Args:
        teacher: The teacher's settings.
        folder: Of its artefact.
        compute: Device, number format and threads.
        workspace: Remembers what the process found.
        say: Told when the process is started.

    Returns:
        Vectors `[P, D]`; empty for a teacher whose model is not loaded from files of its authors.

    Raises:
        UserError: The model cannot be loaded, or its vectors are not those of the authors' library or of the recipe.
    """
    base = teacher.base_folder()
    if base is None:
        return {}
    found = examined_file(teacher, compute, workspace)
    if found.name not in _examined and found.is_file():
        with suppress(ValueError):  # damaged: the process is started again
            known = unseal(json.loads(found.read_text(encoding="utf-8")))
            _examined[found.name] = {role: np.array(rows, np.float32) for role, rows in known.items()}
    if found.name not in _examined:
        say(f"{teacher.name}: loading the model a second time in a process of its own, to compare its vectors")
        _examined[found.name] = examine_in_second_process(teacher, base, folder, compute)
        found.unlink(missing_ok=True)
    if not found.is_file():
        content = {role: _plain(rows_PD) for role, rows_PD in _examined[found.name].items()}
        write_atomically(found, json.dumps(seal(content)))
    return _examined[found.name]


def examined_file(teacher: TeacherConfig, compute: Compute, workspace: Workspace) -> Path:
    """Where a workspace remembers the probe's vectors of a second process, as JSON by role."""
    model = [teacher.kind, teacher.identity_settings(), dict(teacher.external_versions(compute)), _made_with()]
    return workspace.locks / f"known_vectors.{digest(model)}.json"


def require_known(
    teacher: TeacherConfig,
    model: TeacherModel,
    role: Role,
    second: Mapping[Role, np.ndarray],
    workspace: Workspace,
    compute: Compute,
) -> None:
    """Compare what the model makes of the probe with the second process and with what the role's table was made with.

    Args:
        teacher: The teacher's settings.
        model: The teacher as this process loaded it.
        role: Decides prompt and table.
        second: What `require_examined` returned.
        workspace: Where the store is. A table without known vectors gets them.
        compute: What the model computes with.

    Raises:
        KnownVectorsError: They are others; the message says what changed since.
    """
    now_PD = model.encode(list(PROBE), role)
    least = tolerance(teacher.encoder_limits(compute).dtype)
    if not second:
        require_cosines(teacher, model)
    if role in second:
        require_same(
            f"teacher {teacher.name!r}: this process and a second one loaded it with different vectors",
            PROBE, now_PD, second[role], least,
            "Part of the model is not read from its files, e.g. buffers that its code computes. Use another teacher.",
        )  # fmt: skip
    table = VECTORS + model.fingerprint(role)
    kept, made_with = read_note(workspace, table, NOTE), {**_made_with(), "device": compute.device.type}
    if kept is None:
        content = {"made_with": made_with, "texts": list(PROBE), "vectors": _plain(now_PD)}
        write_note(workspace, table, NOTE, json.dumps(seal(content)))
        return
    before = _read(kept, f"{table}, {NOTE}")
    changed = [f"{name} {old} is now {made_with.get(name)}" for name, old in before["made_with"].items()
               if made_with.get(name) != old]  # fmt: skip
    require_same(
        f"teacher {teacher.name!r}: it does not make the vectors any more that {table} holds "
        f"({', '.join(changed) or 'with the same libraries: its files, their code or the processor changed'})",
        before["texts"], model.encode(before["texts"], role), np.array(before["vectors"], np.float32), least,
        "Restore what changed, or work in a new workspace, where all texts are encoded again.",
    )  # fmt: skip


def describe_known(workspace: Workspace, table: str) -> dict[str, Any]:
    """How many known vectors a table has, and what they were made with; empty where it has none yet."""
    kept = read_note(workspace, table, NOTE)
    if kept is None:
        return {}
    content = _read(kept, f"{table}, {NOTE}")
    return {"texts": len(content["texts"]), **content["made_with"]}


def _read(kept: str, where: str) -> dict[str, Any]:
    try:
        content = unseal(json.loads(kept))
        return {name: content[name] for name in ("made_with", "texts", "vectors")}
    except (ValueError, KeyError) as error:
        raise KnownVectorsError(f"{where}: cannot be read ({error}).", "Delete the file; it is written anew.") from None


def _made_with() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _plain(vectors_PD: np.ndarray) -> list[list[float]]:
    # Six digits are beyond every tolerance, and a tenth of the size of all.
    return [[round(float(value), 6) for value in row] for row in vectors_PD]
