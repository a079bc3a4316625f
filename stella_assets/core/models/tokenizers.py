"""Tokenizers: one way to load them, and what a folder without the right files gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stella_assets.core.config import ModelSource
from stella_assets.core.errors import UserError
from stella_assets.core.models.code import pinned_code
from stella_assets.core.models.libraries import libraries_remedy
from stella_assets.core.models.shape import encoder_arguments, read_shape
from stella_assets.core.models.source import ModelFiles, in_one_line

WITHOUT_ATTRIBUTE = {"auto_map", "errors", "fix_mistral_regex", "legacy", "tokenizer_class", "use_fast"}
"""Arguments of `from_pretrained` that choose a class or its code, and that a loaded tokenizer does not tell."""
PREPROCESSOR, VOCABULARIES = "preprocessor_config.json", ("*token*", "vocab*", "*.model")
WORDS = "why is an array of numbers so slow to sort"
"""Words that all readers of a tokenizer.json split alike, whatever they think of accents, digits and the first word."""
TOKENIZER = "tokenizer.json"


class TokenizerError(UserError):
    """A tokenizer whose files are missing, or that belongs to another model."""


def load_tokenizer(source: ModelSource, saved: Path | None = None) -> Any:
    """The tokenizer of a model, as `SentenceTransformer` has it.

    Args:
        source: The model.
        saved: A folder that was saved from this model, to read in its place.

    Raises:
        TokenizerError: Its files are missing, or it has more tokens than the model.
        UserError: The model's configuration cannot be read.
    """
    from transformers import AutoTokenizer

    files, shape = ModelFiles(source, saved), read_shape(source, saved)
    name, arguments = encoder_arguments(files)
    path, settings = files.settings
    if other := settings.get("tokenizer_name_or_path"):
        raise TokenizerError(
            f"{files.name}: {path} takes the tokenizer from elsewhere (`tokenizer_name_or_path` is {other!r}), where "
            "nothing pins it.",
            "Copy the files of that tokenizer next to the model's, and remove the key.",
        )
    _require_merges(files)
    _require_texts(files)
    own = files.arguments("tokenizer_args", "processor_kwargs")
    try:
        with pinned_code(source):
            tokenizer = AutoTokenizer.from_pretrained(name, **{**own, **arguments, **source.tokenizer_kwargs})
        check_tokenizer_kwargs(source, tokenizer)
        check_tokenizer(tokenizer, files, shape.vocabulary)
        _require_published_tokens(tokenizer, files)
    except UserError:
        raise
    except Exception as error:
        raise TokenizerError(
            f"{files.name}: the tokenizer cannot be loaded ({in_one_line(error)}).",
            libraries_remedy(files, error, "Restore the files of the tokenizer."),
        ) from error
    if settings.get("do_lower_case"):
        lower_case(tokenizer)
    return tokenizer


def check_tokenizer_kwargs(source: ModelSource, tokenizer: Any) -> None:
    """Make sure that every key of `tokenizer_kwargs` took effect: transformers drops those that it does not know.

    Raises:
        TokenizerError: The tokenizer has no such setting, or another value.
    """
    # What code of a model's own does with its arguments is not known.
    if not type(tokenizer).__module__.startswith("transformers."):
        return
    absent = object()
    for key, value in source.tokenizer_kwargs.items():
        found = getattr(tokenizer, key, absent)
        # A token may be given with its settings, as a mapping.
        if key not in WITHOUT_ATTRIBUTE and found != value and not (isinstance(value, Mapping) and found is not absent):
            raise TokenizerError(
                f"{source.model}: tokenizer_kwargs.{key} is {value!r}, and {type(tokenizer).__name__} has "
                f"{'no such setting' if found is absent else repr(found)}.",
                "Correct or remove that key.",
            )


def _require_published_tokens(tokenizer: Any, files: ModelFiles) -> None:
    """Refuse a tokenizer.json that the tokenizer's class reads for its vocabulary alone.

    Since transformers 5 many classes have a normalizer and a pre-tokenizer of their own, and pass over those of the
    file, by which the model was trained.

    Raises:
        TokenizerError: The class makes other tokens of plain words than the file says.
    """
    from tokenizers import Tokenizer

    kind = type(tokenizer)
    content = files.read(path := files.in_encoder(TOKENIZER))
    # A class without a constructor reads the whole file, and code of the model's own may do as it likes.
    if content is None or "__init__" not in vars(kind) or not kind.__module__.startswith("transformers.models."):
        return
    published = Tokenizer.from_str(json.dumps(content))
    published.no_truncation()
    published.no_padding()
    # Where case is a setting of the class, it goes before the file's, in every version.
    for text in (WORDS,) if hasattr(tokenizer, "do_lower_case") else (WORDS, WORDS.title()):
        said = published.encode(text, add_special_tokens=False).ids
        made = tokenizer(text, add_special_tokens=False)["input_ids"]
        # What stands before a text's first word is a setting of the class, too.
        after = len(published.encode(text.split()[0], add_special_tokens=False).ids)
        if said[after:] != made[-len(said[after:]) :]:
            theirs, ours = (" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (said, made))
            raise TokenizerError(
                f"{files.name}: by {path} the tokens of {text!r} are {theirs}, and {kind.__name__} of the installed "
                f"transformers makes {ours} of it.",
                "Set `tokenizer_class` to PreTrainedTokenizerFast in tokenizer_config.json: it reads the whole file. "
                "Some types, e.g. qwen2, take their own class nevertheless: as a teacher, such a model can have "
                "transformers 4 in an `environment`; see docs/environments.md.",
            )


def lower_case(tokenizer: Any) -> None:
    """Lower-case texts first, as the Transformer module does where its settings say `do_lower_case`."""
    from tokenizers.normalizers import Lowercase, Sequence

    backend = tokenizer.backend_tokenizer
    known = backend.normalizer
    backend.normalizer = Sequence([Lowercase(), *([known] if known is not None else [])])


def _require_texts(files: ModelFiles) -> None:
    """A model for pictures or sound alone has a preprocessor, and no tokenizer."""
    if files.folder is None:
        return
    inner = files.folder / files.encoder
    if (inner / PREPROCESSOR).is_file() and not any(any(inner.glob(name)) for name in VOCABULARIES):
        raise TokenizerError(
            f"{inner}: it has {PREPROCESSOR} and no tokenizer: it is a model for pictures or sound.",
            "Name a model that encodes texts.",
        )


def _require_merges(files: ModelFiles) -> None:
    """Byte-level vocabularies are pieces that merges put together; without them a text falls apart into bytes."""
    if files.folder is None:
        return
    inner = files.folder / files.encoder
    if (inner / "vocab.json").is_file() and not any(
        (inner / name).is_file() for name in ("merges.txt", "tokenizer.json")
    ):
        raise TokenizerError(
            f"{inner / 'merges.txt'}: no such file, and the tokenizer cannot read vocab.json without it.",
            "Restore the files of the tokenizer.",
        )


def check_tokenizer(tokenizer: Any, files: ModelFiles, vocabulary: int | None) -> None:
    """Refuse a tokenizer without a vocabulary, or with tokens that the model has no embedding for.

    Args:
        tokenizer: Of transformers.
        files: Of the model.
        vocabulary: Rows of the model's table of tokens; None where that is not known.

    Raises:
        TokenizerError: The tokenizer is not that of the model.
    """
    tokens = tokenizer.get_vocab()
    # Without its files a tokenizer has the special tokens of its class, and reads every text as unknown.
    if not set(tokens) - set(tokenizer.all_special_tokens):
        raise TokenizerError(
            f"{files.name}: the tokenizer has no vocabulary: {files.in_encoder('tokenizer.json')} or the vocabulary "
            "file of its class is missing.",
            "Restore the files of the tokenizer.",
        )
    largest = max(tokens, key=tokens.__getitem__)
    if vocabulary is not None and tokens[largest] >= vocabulary:
        raise TokenizerError(
            f"{files.name}: the tokenizer has token {largest!r} with number {tokens[largest]}, and the model has "
            f"embeddings for {vocabulary} tokens.",
            "Restore the tokenizer of this model.",
        )
