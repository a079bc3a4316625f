"""Weights: what a checkpoint lacks would be random, and what it has too much belongs to another model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stella_assets.core.errors import UserError

POOLER = re.compile(r"(^|\.)pooler\.")
"""A layer over the first token, which few models are published with, and which pooling by a module does not read."""
BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|cos_cached|sin_cached|masked_bias|h\.\d+\.attn(\.attention)?\.bias)$"
)
"""Values that `__init__` computes; older versions saved them. `attn.bias` is the mask of GPT-2, GPT-J and GPT-Neo."""
PRETRAINING_HEAD = re.compile(
    r"^(cls|lm_head|head|decoder|mlm|score|classifier|qa_outputs|predictions|sop_classifier|lm_predictions|"
    r"mask_predictions|vocab_transform|vocab_layer_norm|vocab_projector|discriminator_predictions|"
    r"generator_predictions|generator_lm_head)(\.|$)"
)
"""What a checkpoint of a whole language model has next to the encoder."""
SHOWN = 5


class WeightsError(UserError):
    """A checkpoint that does not fit the model, or is damaged."""


@dataclass(frozen=True)
class LoadedWeights:
    """What one loading of weights found.

    Attributes:
        module: Which they were loaded into.
        place: Folder, hub id or file, for messages.
        missing: Parameters and buffers that the checkpoint lacks, also those that the class asks not to be warned of.
        unexpected: Names in the checkpoint that the module lacks.
        mismatched: Name, shape in the checkpoint, shape in the module.
        arguments: With which the class was constructed, in addition to the configuration.
    """

    module: nn.Module
    place: str
    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: frozenset[tuple[str, Any, Any]] = frozenset()
    arguments: dict[str, Any] = field(default_factory=dict)


@contextmanager
def recorded_weights() -> Iterator[list[LoadedWeights]]:
    """Record what every loading of weights finds, also deep inside other libraries and in a model's own code.

    Yields:
        A list that fills while models are loaded.
    """
    from transformers import PreTrainedModel

    records: list[LoadedWeights] = []
    unfilled: dict[int, frozenset[str]] = {}
    from_pretrained, load_state_dict = PreTrainedModel.__dict__["from_pretrained"], nn.Module.load_state_dict
    adjust = PreTrainedModel._adjust_missing_and_unexpected_keys

    def loading(cls: type[PreTrainedModel], *args: Any, **given: Any) -> Any:
        wanted = given.pop("output_loading_info", False)
        # Mismatched shapes are reported here like the others, by name, and not raised as a table.
        asked = {**given, "output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = from_pretrained.__func__(cls, *args, **asked)
        found = {name: frozenset(info[f"{name}_keys"]) for name in ("missing", "unexpected", "mismatched")}
        found["missing"] |= unfilled.pop(id(model), frozenset())
        records.append(LoadedWeights(model, str(args[0]), arguments=_construction(cls, given), **found))
        return (model, info) if wanted else model

    def adjusting(model: PreTrainedModel, info: Any) -> None:
        # Code may list names (`_keys_to_ignore_on_load_missing`) that are to be taken off here; nothing filled them.
        unfilled[id(model)] = frozenset(info.missing_keys)
        adjust(model, info)

    def loading_state(module: nn.Module, state: Any, *args: Any, **given: Any) -> Any:
        keys = load_state_dict(module, state, *args, **given)
        place = type(module).__name__
        records.append(LoadedWeights(module, place, frozenset(keys.missing_keys), frozenset(keys.unexpected_keys)))
        return keys

    PreTrainedModel.from_pretrained = classmethod(loading)  # type: ignore[assignment,method-assign]
    PreTrainedModel._adjust_missing_and_unexpected_keys = adjusting  # type: ignore[assignment,method-assign]
    nn.Module.load_state_dict = loading_state  # type: ignore[assignment,method-assign]
    try:
        yield records
    finally:
        PreTrainedModel.from_pretrained = from_pretrained  # type: ignore[method-assign]
        PreTrainedModel._adjust_missing_and_unexpected_keys = adjust  # type: ignore[method-assign]
        nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign]


def _construction(cls: type, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `from_pretrained` that went on to the class."""
    import inspect

    known = set(inspect.signature(cls).parameters) - {"config"}
    return {name: value for name, value in given.items() if name in known}


def check_weights(record: LoadedWeights, reads_pooler: bool) -> None:
    """Refuse weights that are not those of the model.

    Args:
        record: Of one loading.
        reads_pooler: Whether vectors depend on the pooler.

    Raises:
        WeightsError: The checkpoint lacks weights, has others, or has some of another shape.
    """
    found = {"missing": record.missing, "unexpected": record.unexpected}
    mismatched = {f"{name} {list(has)} instead of {list(wants)}" for name, has, wants in record.mismatched}
    found_all = {**found, "mismatched": mismatched}
    check_names(type(record.module).__name__, record.place, found_all, reads_pooler, record.module)


def check_names(
    kind: str,
    place: str,
    found: Mapping[str, Iterable[str]],
    reads_pooler: bool,
    module: nn.Module | None = None,
) -> None:
    """Refuse weights that are not those of the model, by their names.

    Args:
        kind: Name of the class that they were loaded into.
        place: Folder, hub id or file, for messages.
        found: Names that are `missing`, `unexpected` and `mismatched`.
        reads_pooler: Whether vectors depend on the pooler.
        module: What they were loaded into, where it is at hand. A harmless name may be that of a weight in it, e.g.
            `decoder.layers.0` in OPT.

    Raises:
        WeightsError: Some of the names are not harmless.
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)} if module else set()
    own = {name for name, _ in module.named_children()} if module else set()
    missing = {name for name in found["missing"] if reads_pooler or not POOLER.search(name)}
    missing = {name for name in missing if name in parameters or not BUFFER.search(name)}
    unexpected = {name for name in found["unexpected"] if not POOLER.search(name) and not BUFFER.search(name)}
    unexpected = {name for name in unexpected if name.split(".")[0] in own or not PRETRAINING_HEAD.search(name)}
    mismatched = set(found["mismatched"])
    wrong = [
        f"{fault} {len(names)} weights ({', '.join(sorted(names)[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for fault, names in (("lacks", missing), ("has unknown", unexpected), ("has other shapes of", mismatched))
        if names
    ]
    if wrong:
        raise WeightsError(
            f"{weights_file(place)}: does not fit {kind}: it {'; it '.join(wrong)}. "
            "They would be random, or another model's.",
            "Restore the checkpoint, or correct its config.json; see `trust_remote_code` for a model with code of its "
            "own.",
        )


def settle_unread(model: Any, records: Iterable[LoadedWeights]) -> None:
    """Fix the poolers that checkpoints lack: random ones would differ in each process.

    Args:
        model: A `SentenceTransformer`.
        records: Of its parts.

    Raises:
        WeightsError: Its vectors depend on one of them.
    """
    for record in records:
        parameters = dict(record.module.named_parameters())
        if not (poolers := [parameters[name] for name in record.missing & set(parameters) if POOLER.search(name)]):
            continue
        for parameter in poolers:
            nn.init.constant_(parameter, torch.nan)
        # Whatever reads it, e.g. a module with code of its own, makes NaN of it.
        if not torch.as_tensor(model.encode("text", show_progress_bar=False)).isfinite().all():
            check_weights(record, reads_pooler=True)
        for parameter in poolers:
            # Not zeros throughout: a file that ends in zeros looks as if it was written in part.
            initialise = nn.init.eye_ if parameter.dim() == 2 else nn.init.zeros_
            initialise(parameter)


def check_finite(model: nn.Module, place: str) -> None:
    """Refuse weights that are not numbers.

    Args:
        model: With its weights.
        place: Folder or hub id.

    Raises:
        WeightsError: A parameter has NaN or infinity, or a buffer has NaN; a mask may have infinity.
    """
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and buffer.isnan().any():
            raise WeightsError(f"{weights_file(place)}: {name} has NaN.", "Restore the checkpoint; it is damaged.")
    for name, parameter in model.named_parameters():
        # A sum keeps NaN and infinity, needs no memory, and takes a fraction of the time of a comparison.
        if not parameter.detach().sum(dtype=torch.float32).isfinite():
            raise WeightsError(
                f"{weights_file(place)}: {name} has NaN or infinity.", "Restore the checkpoint; it is damaged."
            )


def weights_file(place: str) -> str:
    """The file that a model's weights are in, for messages; the place itself where that is not a folder."""
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if (path := Path(place) / name).is_file():
            return str(path)
    return place


def loaded_by(model: nn.Module, records: Iterable[LoadedWeights]) -> LoadedWeights | None:
    """The record of a model; None where no recorded loading filled it."""
    return next((record for record in records if record.module is model), None)
