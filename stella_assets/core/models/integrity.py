"""Whether the files of a model are whole, as far as their heads tell."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from stella_assets.core.errors import UserError
from stella_assets.core.models.source import (
    CHECKPOINTS,
    MODULES,
    ModelNotFoundError,
    folder_files,
    other_kind,
    read_config,
)

NO_WEIGHTS = re.compile(r"^(adapter_model|openvino_model|optimizer|scheduler|training_args|rng_state)\b")
"""Files with the same suffixes that hold no whole encoder."""
WHOLE = {"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"}
"""Number formats of safetensors that no weight is published in."""
PAGE = 4096
"""Bytes that a file system writes at once."""


class DamagedFileError(UserError):
    """A file of a model that is not whole."""


def check_files(folder: Path) -> None:
    """Refuse a folder whose weights are missing, damaged or incomplete. Only the heads of the files are read.

    Raises:
        DamagedFileError: A file is cut off, is not in its format, or does not exist.
        ModelNotFoundError: There are no weights of an encoder, or only in another format.
    """
    _require_weights(folder)
    paths = folder_files(folder)
    for path in _named(paths, ".safetensors"):
        _check_safetensors(path)
    for path in _named(paths, ".bin", ".pt", ".pth"):
        with path.open("rb") as file:
            # torch writes a zip archive, whose directory is at the end.
            if file.read(2) == b"PK" and not zipfile.is_zipfile(path):
                raise _damaged(path, "is damaged or cut off")
    for index in _named(paths, ".index.json"):
        content = read_config(index.parent, index.name)
        places = content.get("weight_map", {})
        if not isinstance(places, dict) or (places and "metadata" not in content):
            raise _damaged(index, "is not an index of weights with `metadata` and `weight_map`")
        for name in sorted({str(place) for place in places.values()}):
            if not (index.parent / name).is_file():
                raise _damaged(index.parent / name, f"does not exist, and {index.name} names it")


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        # Opening compares the head of the file with its size.
        with safe_open(path, framework="numpy") as file:
            formats = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, f"is damaged or cut off ({error})") from None
    # They would be taken for the weights themselves. Buffers, e.g. positions, have other names.
    if whole := sorted(name for name in formats if name.endswith(".weight") and formats[name] in WHOLE):
        raise DamagedFileError(
            f"{path}: {whole[0]} holds whole numbers ({formats[whole[0]]}): it is quantised, and nothing says how.",
            "Name the checkpoint that it was made of.",
        )
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - PAGE))
        # What a crash leaves of a copy: the right size, and pages that were never written. The last tensor in the
        # order of names is a matrix or a norm, never zeros.
        if not any(file.read()):
            raise _damaged(path, f"ends in {PAGE:,} bytes of zeros, so it was written in part")


def _require_weights(folder: Path) -> None:
    modules = read_config(folder, MODULES) if (folder / MODULES).is_file() else []
    encoder = folder / str(modules[0]["path"]).strip("/") if modules else folder
    found = (path.name for pattern in CHECKPOINTS for path in encoder.glob(pattern))
    # An index without its files names what is missing, below.
    if not any(not NO_WEIGHTS.match(name) for name in found) and not any(encoder.glob("*.index.json")):
        holds, remedy = other_kind(encoder) or ("a configuration alone", "Copy or download the model again.")
        raise ModelNotFoundError(f"{encoder}: it has no weights in safetensors: it holds {holds}.", remedy)


def _named(paths: list[Path], *endings: str) -> list[Path]:
    return sorted(path for path in paths if path.name.endswith(endings))


def _damaged(path: Path, fault: str) -> DamagedFileError:
    return DamagedFileError(f"{path}: {fault}.", "Copy or download the file again.")
