"""Starting a program without secrets, and without network where the system can keep it away."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

WITHOUT_NETWORK = ("unshare", "--map-root-user", "--net")
"""A network namespace of its own has no interface that is up. The user namespace makes it possible without rights."""


@lru_cache
def can_close_network() -> bool:
    """Whether this system lets a process give up its network. It is tried; no file tells it for certain."""
    # Containers often forbid namespaces, some distributions forbid them to unprivileged users, macOS has none.
    if shutil.which(WITHOUT_NETWORK[0]) is None:
        return False
    return subprocess.run([*WITHOUT_NETWORK, "true"], check=False, capture_output=True).returncode == 0


def closed_command(command: list[str]) -> list[str]:
    """A command that runs without network, where the system can do that; else the command as it is."""
    return [*WITHOUT_NETWORK, *command] if can_close_network() else command


def clean_variables(allowed: Mapping[str, str], home: Path, threads: int, hub_cache: str) -> dict[str, str]:
    """All environment variables of a program that must see no secrets.

    Args:
        allowed: What it may see of this process's variables.
        home: An empty folder that is its home, its cache and its place for temporary files.
        threads: Of the CPU.
        hub_cache: Where models of the Hugging Face hub were downloaded to; it reads them from there.
    """
    return {
        "PATH": "/usr/bin:/bin",
        **allowed,
        "HOME": str(home),
        "TMPDIR": str(home),
        # Old versions of the libraries know the first name only, and would look for a token in HF_HOME.
        "HUGGINGFACE_HUB_CACHE": hub_cache,
        "HF_HUB_CACHE": hub_cache,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TQDM_DISABLE": "1",  # its last lines are shown where it fails, and bars would fill them
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
    }
