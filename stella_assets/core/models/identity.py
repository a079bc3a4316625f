"""What identifies a model: its weights, its code, and how it is loaded."""

from __future__ import annotations

from pathlib import Path

from stella_assets.core.config import ModelSource
from stella_assets.core.models.code import check_code
from stella_assets.core.models.source import CHECKPOINTS, ModelFiles, files_digest, folder_files
from stella_assets.storage.canonical import digest

# What decides a model's vectors: weights, configuration, vocabulary and its own code; not README or images.
VOCABULARIES = {".txt", ".model", ".codes", ".spm", ".tiktoken"}
CONTENT_SUFFIXES = {".json", ".py"} | VOCABULARIES | {Path(pattern).suffix for pattern in CHECKPOINTS}
LOADING = ("trust_remote_code", "code_digest", "code_revision", "config_kwargs", "model_kwargs", "tokenizer_kwargs")
"""Settings that decide what is made of the files."""


def model_digest(source: ModelSource) -> str:
    """What identifies a model: a digest of the folder's files, or of hub id and revision, and how it is loaded.

    Raises:
        ModelNotFoundError: It is a folder, and there is no model in it.
        CodeError: It is a folder with code that the recipe does not trust or pin.
    """
    content: list[str | None] | str
    if source.on_hub:
        # The hub's commit names the content, so nothing has to be downloaded to know it.
        content = [source.model, source.revision]
    else:
        files = ModelFiles(source)
        check_code(files)
        folder = files.folder
        assert folder is not None
        content = files_digest(folder, [path for path in folder_files(folder) if path.suffix in CONTENT_SUFFIXES])
    # Only what is set: plain models keep the digest that they always had.
    loading = {name: value for name in LOADING if (value := getattr(source, name))}
    if loading:
        return digest([content, loading])
    return content if isinstance(content, str) else digest(content)
