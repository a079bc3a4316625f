"""Making a virtual environment, with uv where it is installed, else with venv and pip."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stella_assets.core.environments.interpreters import find_program, version_of
from stella_assets.core.environments.record import (
    MARKER,
    REQUIREMENTS,
    MarkerError,
    installed_packages,
    read_marker,
    record_digests,
    seal_marker,
    this_platform,
)
from stella_assets.core.environments.requirements import Requirement
from stella_assets.core.errors import UserError
from stella_assets.storage.files import write_atomically

SHOWN_LINES = 12
"""Of what an installer says when it fails."""


def program_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "python" / "bin" / "python"


def damage(folder: Path, version: str) -> str | None:
    """What is wrong with an environment, in words; None where it is whole.

    Args:
        folder: Of the environment.
        version: Of Python.
    """
    if not folder.is_dir():
        return "was not made yet"
    if not (folder / MARKER).is_file():
        return "was only half made"
    # Also true where the Python that it was made from was removed or replaced by another one.
    if version_of(program_of(folder)) != version:
        return f"has a Python {version} that does not start"
    try:
        noted = read_marker(folder)["installed"]
    except MarkerError:
        return "has a damaged record"
    installed = _versions(folder)
    changed = sorted(name for name in noted.keys() | installed.keys() if noted.get(name) != installed.get(name))
    return f"has packages that were changed or removed ({', '.join(changed)})" if changed else None


def make(folder: Path, interpreter: str, version: str, requirements: Sequence[Requirement], descriptor: int) -> None:
    """Make an environment under its final name; what lies there is removed first.

    Packages are installed from wheels only, so no code of theirs runs, and only with the given hashes.

    Args:
        folder: Of the environment. A virtual environment holds its own path, so it cannot be made elsewhere and moved.
        interpreter: Of Python, to make it from.
        version: Of Python.
        requirements: All packages; the installer refuses a list that lacks a dependency.
        descriptor: Of the lock that is held; installers inherit it.

    Raises:
        UserError: An installer failed.
    """
    if folder.exists():
        # The marker first: a removal that is interrupted must not leave an environment that looks whole.
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / REQUIREMENTS).write_text("".join(f"{each.line}\n" for each in requirements), encoding="utf-8")
    uv = find_program("uv")
    commands = _with_uv(uv, folder, interpreter) if uv else _with_pip(folder, interpreter)
    for command in commands:
        _run(command, folder, descriptor)
    noted: Mapping[str, Any] = {
        "python": version,
        "platform": this_platform(),
        "requirements": [str(each) for each in requirements],
        "installed": _versions(folder),
        "records": record_digests(folder),
        "installer": "uv" if uv else "pip",
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / MARKER, seal_marker(noted))


def _with_uv(uv: str, folder: Path, interpreter: str) -> list[list[str]]:
    python = str(program_of(folder))
    pinned = ["--require-hashes", "--only-binary", ":all:", "--requirements", str(folder / REQUIREMENTS)]
    return [
        [uv, "venv", "--no-project", "--no-python-downloads", "--python", interpreter, str(folder / "python")],
        # Copied: links would let a model's code change the files in uv's cache, and so other environments.
        [uv, "pip", "install", "--no-python-downloads", "--link-mode", "copy", "--python", python, *pinned],
    ]


def _with_pip(folder: Path, interpreter: str) -> list[list[str]]:
    pinned = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(folder / REQUIREMENTS)]
    # Isolated, so that PYTHONPATH does not show pip the packages of this process.
    return [
        [interpreter, "-I", "-m", "venv", str(folder / "python")],
        [str(program_of(folder)), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *pinned],
    ]


def _run(command: list[str], folder: Path, descriptor: int) -> None:
    # The variables of this process stay: with them people tell pip and uv of indexes, proxies and certificates.
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[descriptor],
    )
    if done.returncode != 0:
        said = "\n".join(line for line in done.stdout.splitlines()[-SHOWN_LINES:] if line.strip())
        raise UserError(
            f"{folder}: {Path(command[0]).name} could not make this environment:\n{said}\n",
            "Correct `environment.requirements`, or the indexes in the settings of pip or uv, and run again.",
        )


def _versions(folder: Path) -> dict[str, str]:
    return {name: each.version for name, each in installed_packages(folder).items()}
