"""Whether an environment is as its installer wrote it: every file that a package's RECORD has a hash of."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from stella_assets.core.environments.requirements import normal_name
from stella_assets.storage.canonical import digest
from stella_assets.storage.sealed import seal, unseal

MARKER = "environment.json"
"""Written last, so an environment without it is only half made."""
REQUIREMENTS = "requirements.txt"


class MarkerError(Exception):
    """The record of an environment cannot be read, or was changed."""


def this_platform() -> list[str]:
    """What the files of an environment are for."""
    return [platform.system(), platform.machine()]


def content_key(lines: list[str], version: str, made_for: list[str]) -> str:
    """Name of the folder of an environment.

    Args:
        lines: Its requirements with their hashes, as other files of the same versions may hold other code.
        version: Of Python.
        made_for: As `this_platform` gives it.
    """
    return digest([sorted(lines), version, *made_for])[:16]


def seal_marker(content: Mapping[str, Any]) -> str:
    """The record of an environment, with a digest of itself."""
    return json.dumps(seal(content), indent=1, sort_keys=True)


def read_marker(folder: Path) -> dict[str, Any]:
    """The record of an environment that is made.

    Raises:
        MarkerError: It cannot be read, or was changed.
    """
    try:
        content = unseal(json.loads((folder / MARKER).read_text(encoding="utf-8")))
        if isinstance(content["installed"], dict):
            return content
    except (OSError, ValueError, KeyError):
        pass
    raise MarkerError(f"{folder / MARKER} was changed")


def installed_packages(folder: Path) -> dict[str, Distribution]:
    """The packages in an environment. Its own Python is not asked: starting it can run their code."""
    places = [str(place) for place in (folder / "python" / "lib").glob("python*/site-packages")]
    return {normal_name(each.name): each for each in distributions(path=places)}


def record_digests(folder: Path) -> dict[str, str]:
    """A digest of each package's RECORD, which has the hashes of its files."""
    return {name: digest(each.read_text("RECORD")) for name, each in installed_packages(folder).items()}


def deviations(folder: Path) -> Iterator[str]:
    """What is not as it was when the environment was made; every file is read.

    Args:
        folder: Of the environment. One that is only half made has no record, so nothing is known of it.

    Yields:
        What is wrong, in words.
    """
    if not (folder / MARKER).is_file():
        return
    try:
        marker = read_marker(folder)
        lines = (folder / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    except (MarkerError, OSError, UnicodeDecodeError) as error:
        yield str(error)
        return
    if content_key(lines, marker["python"], marker.get("platform", this_platform())) != folder.name:
        yield f"{folder / REQUIREMENTS} is not the list of requirements that the folder is named after"
    now, noted = record_digests(folder), marker.get("records", {})
    for name in sorted(marker["installed"].keys() | now.keys()):
        if name not in now or name not in marker["installed"]:
            yield f"{name} was {'added' if name in now else 'removed'}"
        elif name in noted and noted[name] != now[name]:
            yield f"the RECORD of {name} was changed"
    for each in installed_packages(folder).values():
        yield from _wrong_files(each)


def _wrong_files(package: Distribution) -> Iterator[str]:
    for row in csv.reader((package.read_text("RECORD") or "").splitlines()):
        # Compiled files and the RECORD itself have no hash.
        if len(row) == 3 and row[1].startswith("sha256="):
            path = Path(str(package.locate_file(row[0])))
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                yield f"{path} is missing"
                continue
            if base64.urlsafe_b64encode(found).decode().rstrip("=") != row[1].removeprefix("sha256="):
                yield f"{path} was changed"
