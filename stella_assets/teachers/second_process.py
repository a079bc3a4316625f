"""A teacher that is opened a second time, in a process of its own, and examined there.

`python -m stella_assets.teachers.second_process REQUEST.json ANSWER.npz` writes one matrix per role.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from stella_assets.core.devices import Compute
from stella_assets.core.environments import Environments
from stella_assets.core.errors import EXPECTED, UserError
from stella_assets.core.processes import read_matrices, run_clean
from stella_assets.core.registry import load_entry_points
from stella_assets.teachers.examination import ROLES, KnownVectorsError, examine, tolerance
from stella_assets.teachers.kinds import TEACHERS
from stella_assets.teachers.kinds.base import Role, TeacherConfig

REFUSED = 3
"""Exit status where the teacher was examined and must not be used; the message is in the answer."""


def examine_in_second_process(
    teacher: TeacherConfig, base: Path, folder: Path, compute: Compute
) -> dict[Role, np.ndarray]:
    """Have a process of its own open a teacher and examine it.

    Args:
        teacher: The teacher's settings.
        base: Where its relative paths count from.
        folder: Of its artefact.
        compute: Device, number format and threads.

    Returns:
        The probe's vectors, `[P, D]`, by role.

    Raises:
        KnownVectorsError: The examination failed, or the process did.
    """
    request = {
        "settings": teacher.model_dump(mode="json"),
        "base": str(base),
        "folder": str(folder),
        "device": compute.device_name,
        "threads": compute.threads,
        "environments": compute.environments.to_json(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        done, answered = run_clean(__name__, request, Path(scratch))
        if done.returncode == REFUSED:
            raise KnownVectorsError(**json.loads(answered.read_text(encoding="utf-8")))
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            # What ended a process comes last; the traceback goes with the cause.
            raise KnownVectorsError(
                f"teacher {teacher.name!r}: the model does not compute a few texts in a process of its own "
                f"({said[-1][:300]}).",
                "Look at the model's files and at the versions of the installed libraries, or use another teacher.",
            ) from ChildProcessError(done.stderr[-4000:])
        matrices = read_matrices(answered)
        return {role: matrices[role] for role in ROLES}


def main() -> None:
    """Examine the teacher that the arguments name."""
    asked, answered = sys.argv[1:]
    request = json.loads(Path(asked).read_text(encoding="utf-8"))
    load_entry_points()
    kind = TEACHERS[request["settings"]["kind"]]
    teacher = kind.model_validate(request["settings"], context={"folder": Path(request["base"])})
    environments = Environments.from_json(request["environments"])
    compute = Compute(request["device"], request["threads"], environments=environments)
    compute.limit_threads()
    try:
        model = teacher.open(Path(request["folder"]), compute)
        found = examine(teacher, model, tolerance(teacher.encoder_limits(compute).dtype))
    except EXPECTED as error:
        message, remedy = (error.message, error.remedy) if isinstance(error, UserError) else (str(error), "")
        Path(answered).write_text(json.dumps({"message": message, "remedy": remedy}), encoding="utf-8")
        raise SystemExit(REFUSED) from None
    np.savez(answered, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
