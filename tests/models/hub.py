"""A repository of the Hugging Face hub in its cache, as a download leaves it; for processes that are offline."""

import shutil
from collections.abc import Mapping
from pathlib import Path


def write_commit(cache: Path, repository: str, commit: str, files: Mapping[str, str | Path]) -> None:
    """Add a commit, and move `main` to it.

    Args:
        cache: What `HF_HUB_CACHE` names.
        repository: `owner/name`.
        commit: 40 hexadecimal digits.
        files: Text, or a file to copy, by name.
    """
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, snapshot / name)
        else:
            (snapshot / name).write_text(content, encoding="utf-8")
