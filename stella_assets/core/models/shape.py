"""What a model's configuration says, in the names of transformers' AutoConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.devices import Compute, Dtype, DtypeChoice
from stella_assets.core.errors import UserError
from stella_assets.core.models.code import check_code, pinned_code
from stella_assets.core.models.libraries import is_of_model, libraries_remedy
from stella_assets.core.models.source import (
    ADAPTER,
    CONFIG,
    MERGE,
    RESTORE,
    ST_CONFIG,
    ModelFiles,
    in_one_line,
    read_config,
)

OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "markuplm", "mluke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Types that number positions from the one after the padding token's id, as RoBERTa does."""
FLOAT32_ONLY = {"deberta"}
"""Types whose code mixes number formats, so that it does not compute in bfloat16."""
WIDTHS = ("embedding_dimension", "word_embedding_dimension", "out_features")
"""Of a module's config.json: the dimensions of the module."""


def own_format(model_type: str) -> DtypeChoice:
    """The number format that a type of model has to compute in; `auto` where it takes the device's."""
    return "float32" if model_type in FLOAT32_ONLY else "auto"


class ConfigError(UserError):
    """A model's configuration that cannot be read, or has no such key."""


def encoder_format(source: ModelSource, choice: DtypeChoice, compute: Compute) -> Dtype:
    """The number format that a model's encoder computes in: the device's, where the model's code can do so.

    Args:
        source: The model. Its type is read where the device does not compute in float32, also from a hub.
        choice: Of the recipe.
        compute: The device.

    Raises:
        ConfigError: The recipe asks for a format that the model's code does not compute in.
    """
    dtype = compute.dtype(choice)
    if dtype == "float32":
        return dtype
    files = ModelFiles(source)
    model_type = str((files.read(files.in_encoder(CONFIG)) or {}).get("model_type"))
    if own_format(model_type) == "auto":
        return dtype
    if choice != "auto":
        raise ConfigError(
            f"{files.name}: `dtype` is {choice}, and models of type {model_type!r} compute in float32 only.",
            "Remove `dtype`, or set it to float32.",
        )
    return "float32"


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a transformers model, whatever its architecture calls them.

    Attributes:
        model_type: Of transformers.
        hidden: Dimensions of a token's state.
        layers: Of the encoder.
        positions: Tokens of the longest text, special tokens included; None where positions have no limit.
        vocabulary: Rows of the table of tokens; None where it does not say.
        projected: Dimensions that states are projected to, as in CLIP; None where they are not.
        composite: Whether it is several models, as of texts and of pictures, each with sizes of its own.
    """

    model_type: str
    hidden: int
    layers: int
    positions: int | None
    vocabulary: int | None
    projected: int | None = None
    composite: bool = False


def shape_of(config: Any) -> ModelShape:
    """The sizes that a configuration of transformers states.

    Raises:
        ConfigError: It states no number of layers or dimensions.
    """
    # Models of several modalities have one configuration for each; others are their own text configuration.
    text = config.get_text_config()
    hidden, layers = getattr(text, "hidden_size", None), getattr(text, "num_hidden_layers", None)
    if not hidden or not layers:
        raise ConfigError(
            f"{config.name_or_path}: the configuration of type {config.model_type!r} states hidden_size {hidden} and "
            f"num_hidden_layers {layers}.",
            "Name a model that encodes texts with a transformer, or use a teacher kind that is made for it.",
        )
    positions = getattr(text, "max_position_embeddings", None)
    if positions and text.model_type in OFFSET_POSITIONS:
        # As many positions as the padding token's id, and one more, are reserved.
        positions -= (text.pad_token_id or 0) + 1
    composite = text is not config
    return ModelShape(
        model_type=config.model_type,
        hidden=hidden,
        layers=layers,
        positions=positions if positions and positions > 0 else None,  # XLNet says -1
        vocabulary=getattr(text, "vocab_size", None),
        projected=getattr(config, "projection_dim", None) if composite else None,
        composite=composite and not hasattr(config, "hidden_size"),
    )


def load_config(source: ModelSource, saved: Path | None = None) -> Any:
    """A model's configuration, as transformers reads it, with the recipe's `config_kwargs`.

    Args:
        source: The model.
        saved: A folder that was saved from this model, to read in its place.

    Raises:
        ConfigError: It cannot be read, or has not the keys of `config_kwargs`.
        CodeError: It names code that the recipe does not trust or pin.
    """
    from transformers import AutoConfig

    files = ModelFiles(source, saved)
    # A saved model has the code of the one that it was saved from, whose pin was checked then.
    if saved is None or not source.trust_remote_code:
        check_code(files)
    name, arguments = encoder_arguments(files)
    if files.modules and str(files.modules[0]["type"]).endswith("StaticEmbedding"):
        raise ConfigError(
            f"{files.name}: is a table of token vectors without an encoder.",
            "Use it as a teacher of `kind: static`; a student needs a transformers model.",
        )
    if files.read(adapter := files.in_encoder(ADAPTER)) is not None:
        raise ConfigError(f"{files.name}/{adapter}: the model has an adapter (LoRA) that is not merged.", MERGE)
    if files.folder is not None:
        read_config(Path(name))  # its errors name the file
    # Former names first, as sentence-transformers takes them.
    own = files.arguments("config_args", "config_kwargs")
    try:
        with pinned_code(source):
            config = AutoConfig.from_pretrained(name, **{**own, **arguments, **source.config_kwargs})
    except Exception as error:
        if not is_of_model(source, error):
            raise
        raise ConfigError(
            f"{files.name}: transformers cannot read {files.in_encoder(CONFIG)} ({in_one_line(error)}).",
            libraries_remedy(files, error, "Correct `model`, or use the libraries that the model's authors name."),
        ) from error
    check_config_kwargs(source, config)
    if quantised := getattr(config, "quantization_config", None):
        method = getattr(quantised, "quant_method", None) or dict(quantised).get("quant_method")
        raise ConfigError(
            f"{files.name}: its weights are quantised ({method}), so they are not those that were published first.",
            "Name the checkpoint that it was made of. A teacher's number format is set by `dtype`.",
        )
    # Code of the time of transformers 4 sets the former name after the present one is read, and so to null.
    if (files.read(files.in_encoder(CONFIG)) or {}).get("rope_parameters") and not config.rope_parameters:
        raise ConfigError(
            f"{files.name}: {files.in_encoder(CONFIG)} states `rope_parameters`, and {type(config).__name__} of the "
            "model's own code reads none.",
            "Call that key `rope_scaling` in the file, as the code does.",
        )
    return config


def check_config_kwargs(source: ModelSource, config: Any) -> None:
    """Make sure that every key of `config_kwargs` took effect: transformers drops those that it does not know.

    Raises:
        ConfigError: The configuration has no such key.
    """
    absent = object()
    for key, value in source.config_kwargs.items():
        found = getattr(config, key, absent)
        # A part of a configuration is an object of its own.
        if found != value and not (isinstance(value, Mapping) and found is not absent):
            raise ConfigError(
                f"{source.model}: config_kwargs.{key} is {value!r}, and the configuration of type "
                f"{config.model_type!r} has {'no such key' if found is absent else repr(found)}.",
                "Correct or remove that key.",
            )


def encoder_arguments(files: ModelFiles) -> tuple[str, dict[str, Any]]:
    """Name and arguments for `from_pretrained` of the transformers model of a SentenceTransformers model."""
    trust = {"trust_remote_code": files.source.trust_remote_code}
    if files.folder is not None:
        # Otherwise a file that the folder lacks would be looked for on the hub.
        return str(files.folder / files.encoder), {"local_files_only": True, **trust}
    return files.source.model, {"revision": files.source.revision, "subfolder": files.encoder, **trust}


def read_shape(source: ModelSource, saved: Path | None = None) -> ModelShape:
    """Sizes of a model, from its configuration alone.

    Args:
        source: The model. Files of a hub are downloaded, or found in its cache.
        saved: A folder that was saved from this model, to read in its place.

    Raises:
        UserError: The configuration cannot be read.
    """
    config = load_config(source, saved)
    try:
        return shape_of(config)
    except ConfigError as error:
        # Code for other versions of transformers may state sizes in ways that this version does not read.
        remedy = libraries_remedy(ModelFiles(source, saved), error, error.remedy)
        raise ConfigError(error.message, remedy) from None


def read_width(source: ModelSource) -> int:
    """Dimensions of the vectors of a SentenceTransformers model, from its configuration files.

    Args:
        source: The model.

    Raises:
        UserError: A configuration cannot be read.
    """
    files = ModelFiles(source)
    stated = modules_width(files)
    if stated is None:
        shape = read_shape(source)
        # A plain transformers model: sentence-transformers adds mean pooling, which keeps the width.
        stated = shape.projected or shape.hidden
    return truncated_width(files, stated)


def truncated_width(files: ModelFiles, width: int) -> int:
    """Dimensions that a model's authors give of those that its modules make."""
    return min(width, kept_dimensions(files.read(ST_CONFIG) or {}, files.name) or width)


def kept_dimensions(own: Mapping[str, Any], name: str) -> int | None:
    """How many leading dimensions a model's authors keep, its `truncate_dim`; None for all.

    Args:
        own: Of `config_sentence_transformers.json`.
        name: Folder or hub id, for messages.

    Raises:
        ConfigError: It is no number of dimensions.
    """
    kept = own.get("truncate_dim")
    if kept is not None and (not isinstance(kept, int) or isinstance(kept, bool) or kept < 1):
        raise ConfigError(
            f"{name}: {ST_CONFIG} has truncate_dim {kept!r:.50}, which is not a positive integer.", RESTORE
        )
    return kept


def modules_width(files: ModelFiles) -> int | None:
    """Dimensions that a model's modules state; None where none does. No code of the model is run."""
    # The last module that states a width decides; Normalize, for one, states nothing.
    for module in reversed(files.modules[1:]):
        path = str(module["path"]).strip("/")
        config = files.read(f"{path}/{CONFIG}" if path else CONFIG) or {}
        stated = next((config[key] for key in WIDTHS if key in config), None)
        if stated is None:
            continue
        if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
            raise ConfigError(f"{files.name}: {path}/{CONFIG} states no width ({stated!r:.50}).", RESTORE)
        return stated * pooling_modes(config)
    return None


def pooling_modes(config: Mapping[str, Any]) -> int:
    """How many poolings a module's configuration concatenates; 1 for a module that does not pool."""
    named = config.get("pooling_mode")
    if named is not None:
        return len(named) if isinstance(named, list | tuple) else 1
    # Before sentence-transformers 5.5 each mode had a flag.
    return max(1, sum(value is True for key, value in config.items() if key.startswith("pooling_mode_")))
