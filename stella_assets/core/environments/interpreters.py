"""Python interpreters of this machine. None is ever downloaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from stella_assets.core.errors import UserError

VERSION = re.compile(r"\d+\.\d+")
OWN_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# Without `site`, whose `.pth` files may run code of installed packages, and without variables such as PYTHONPATH.
BARE = ("-I", "-S")
ASK = "import sys; print('%d.%d' % sys.version_info[:2])"


def version_of(interpreter: str | Path) -> str | None:
    """The version of an interpreter, e.g. `3.11`; None where it does not exist or does not start."""
    try:
        asked = subprocess.run(
            [str(interpreter), *BARE, "-c", ASK], check=False, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = asked.stdout.strip()
    # Other programs, e.g. `echo`, take any arguments, too.
    return said if asked.returncode == 0 and VERSION.fullmatch(said) else None


def find_program(name: str) -> str | None:
    """A program on PATH or next to this interpreter, which need not be on PATH."""
    beside = Path(sys.executable).with_name(name)
    return shutil.which(name) or (str(beside) if beside.is_file() else None)


@lru_cache
def python_version(wanted: str | None) -> str:
    """The version that a setting asks for.

    Args:
        wanted: A version, the path of an interpreter, or None for this Python's version.

    Raises:
        UserError: It is a path where no interpreter is.
    """
    if wanted is None:
        return OWN_VERSION
    if "/" not in wanted:
        return wanted
    version = version_of(wanted)
    if version is None:
        raise UserError(f"{wanted}: is not a Python interpreter that starts.", "Correct `environment.python`.")
    return version


def find_interpreter(wanted: str | None) -> str:
    """An interpreter of the version that a setting asks for.

    Args:
        wanted: A version, the path of an interpreter, or None for this Python's version.

    Raises:
        UserError: This machine has none.
    """
    if wanted is not None and "/" in wanted:
        return wanted
    version = wanted or OWN_VERSION
    for candidate in (sys.executable, f"python{version}", *_known_to_uv(version)):
        # Asked, not believed: `python3.9` may be a shim that only says that 3.9 is not installed.
        if version_of(candidate) == version:
            return candidate
    raise UserError(
        f"Python {version}: is not on this machine, and an environment needs it.",
        "Install it so that it is on PATH, or give the path of an interpreter as `environment.python`.",
    )


def _known_to_uv(version: str) -> list[str]:
    """The interpreter that uv finds, e.g. one that it has installed itself."""
    uv = find_program("uv")
    if uv is None:
        return []
    asked = subprocess.run(
        [uv, "python", "find", "--no-project", "--no-python-downloads", version],
        check=False,
        capture_output=True,
        text=True,
    )
    return [asked.stdout.strip()] if asked.returncode == 0 else []
