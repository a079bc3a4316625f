"""Small wheels and an index of them, so that environments are made without any network."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str] = {}, requires: str = "") -> str:
    """Write a wheel of some files, and return the line that requires it."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = {
        **files,
        f"{stem}.dist-info/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    rows = [f"{path},sha256={_hash(text)},{len(text.encode())}\n" for path, text in content.items()]
    content[record] = "".join(rows) + f"{record},,\n"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)  # a fixed date: the same files have the same hash
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def use_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip and uv find wheels in a folder and nowhere else, as a person sets them up: by variables."""
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(folder))
