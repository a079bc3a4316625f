"""Models of SentenceTransformers and transformers: where they lie, what identifies them, and how they are loaded."""

from stella_assets.core.models.code import CodeError, check_code, code_digest, named_code
from stella_assets.core.models.cross_encoder import load_cross_encoder
from stella_assets.core.models.family import require_one_encoder, require_text_vectors
from stella_assets.core.models.hub import UNREAD, HubError, hub_states, is_cached
from stella_assets.core.models.identity import CONTENT_SUFFIXES, model_digest
from stella_assets.core.models.integrity import check_files
from stella_assets.core.models.libraries import LoadError, explained_code
from stella_assets.core.models.load import load_module, load_sentence_transformer, translated, without_cycle
from stella_assets.core.models.shape import (
    ConfigError,
    ModelShape,
    encoder_format,
    kept_dimensions,
    load_config,
    modules_width,
    own_format,
    pooling_modes,
    read_shape,
    read_width,
    shape_of,
    truncated_width,
)
from stella_assets.core.models.source import (
    CONFIG,
    MODULES,
    ST_CONFIG,
    ModelFiles,
    ModelNotFoundError,
    files_digest,
    model_folder,
    read_config,
    source_folder,
)
from stella_assets.core.models.tokenizers import TokenizerError, check_tokenizer, load_tokenizer

__all__ = [
    "CONFIG",
    "CONTENT_SUFFIXES",
    "MODULES",
    "ST_CONFIG",
    "UNREAD",
    "CodeError",
    "ConfigError",
    "HubError",
    "LoadError",
    "ModelFiles",
    "ModelNotFoundError",
    "ModelShape",
    "TokenizerError",
    "check_code",
    "check_files",
    "check_tokenizer",
    "code_digest",
    "encoder_format",
    "explained_code",
    "files_digest",
    "hub_states",
    "is_cached",
    "kept_dimensions",
    "load_config",
    "load_cross_encoder",
    "load_module",
    "load_sentence_transformer",
    "load_tokenizer",
    "model_digest",
    "model_folder",
    "modules_width",
    "named_code",
    "own_format",
    "pooling_modes",
    "read_config",
    "read_shape",
    "read_width",
    "require_one_encoder",
    "require_text_vectors",
    "shape_of",
    "source_folder",
    "translated",
    "truncated_width",
    "without_cycle",
]
