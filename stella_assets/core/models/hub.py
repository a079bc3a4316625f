"""What is known of a model of the hub without downloading it: its pin, what the cache holds, and sizes."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from stella_assets.core.config import COMMIT, ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models.integrity import check_files
from stella_assets.core.models.source import CONFIG, MODULES, in_one_line

TIMEOUT_SECONDS = 5.0
"""For all models of a recipe together: whoever has no network should hear of it soon."""
NOT_CACHED = "it is not in the cache; a run would download it"
UNREAD = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf")
"""Files of a repository that are never downloaded: weights in other formats."""


class HubError(UserError):
    """The hub has no such model."""


def hub_states(models: Mapping[str, ModelSource], timeout: float = TIMEOUT_SECONDS) -> list[str]:
    """What is known of the models of the hub, a sentence each. Nothing is downloaded.

    Args:
        models: By what uses them, e.g. `student`; those that lie in a folder are left out.
        timeout: Seconds to wait for the hub, in all.

    Returns:
        Sentences on pin, trust, cache and sizes. A hub that does not answer is no error.

    Raises:
        HubError: The hub answers that there is no such model or revision, and the cache does not have it either.
    """
    states: dict[str, str | UserError] = {}

    def look(owner: str, source: ModelSource) -> None:
        try:
            states[owner] = _state(source, timeout)
        except UserError as error:
            states[owner] = error

    asked = {owner: source for owner, source in models.items() if source.on_hub}
    # Daemons: looking up a host's name has no timeout, and must not keep the command from ending.
    threads = [threading.Thread(target=look, args=each, daemon=True) for each in asked.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    found = []
    for owner, source in asked.items():
        state = states.get(owner, f"{NOT_CACHED} (the hub did not answer within {timeout:g} s)")
        if isinstance(state, UserError):
            raise HubError(f"{owner}: {state.message}", state.remedy) from state
        found.append(f"{owner}: {source.model} at {_pin(source)}; {state}.")
    return found


def _pin(source: ModelSource) -> str:
    revision = str(source.revision)
    pin = f"commit {revision[:12]}" if re.fullmatch(COMMIT, revision) else f"{revision!r}, a name that can be moved"
    return f"{pin}; its own code {'is trusted' if source.trust_remote_code else 'is not run'}"


def _state(source: ModelSource, timeout: float) -> str:
    """Where the model is and how much of it is missing.

    Raises:
        HubError: The hub answers that there is no such model or revision.
    """
    import httpx2
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if is_cached(source):
        return "it is in the cache"
    try:
        info = HfApi().model_info(source.model, revision=source.revision, files_metadata=True, timeout=timeout)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise HubError(
            f"the hub has no {source.model} at revision {source.revision} ({type(error).__name__}).",
            "Correct `model` and `revision`, or give a token of the hub that may read it.",
        ) from error
    except (OSError, ValueError, httpx2.HTTPError) as error:  # no network, or an answer of something else
        return f"{NOT_CACHED} (the hub does not answer: {in_one_line(error)[:100]})"
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    read = _read_files(sizes)
    missing = [
        name
        for name in read
        if not isinstance(try_to_load_from_cache(source.model, name, revision=source.revision), str)
    ]
    size, rest = sum(sizes[name] for name in read), sum(sizes[name] for name in missing)
    part = "it is not in the cache" if len(missing) == len(read) else "a part of it is in the cache"
    return f"{part}; a run would download {rest / 1e9:.2f} of its {size / 1e9:.2f} GB"


def _read_files(names: Mapping[str, int]) -> list[str]:
    """Files that loading reads: weights in one format."""
    kept = [name for name in names if not any(PurePosixPath(name).match(pattern) for pattern in UNREAD)]
    safe = {PurePosixPath(name).parent for name in kept if name.endswith(".safetensors")}
    return [name for name in kept if not (name.endswith(".bin") and PurePosixPath(name).parent in safe)]


def is_cached(source: ModelSource) -> bool:
    """Whether the cache has a configuration and all weights of the revision."""
    from huggingface_hub import try_to_load_from_cache

    for name in (MODULES, CONFIG):
        found = try_to_load_from_cache(source.model, name, revision=source.revision)
        if isinstance(found, str):
            try:
                check_files(Path(found).parent)
            except UserError:  # it is not whole
                return False
            return True
    return False
