"""Layers of an encoder: which are kept, which train, and what they keep in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from stella_assets.core.attention import forward_again
from stella_assets.students.base import StudentError, TrainedLayers
from stella_assets.students.dense.model import DenseStudent

PER_LAYER = ("layer_types", "_layers")
"""Ends of the names of a configuration's lists that have one entry per layer, e.g. Gemma's `layer_types`."""


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers of a transformers model.

    Args:
        model: Of transformers.

    Returns:
        The module list itself, so that changes to it change the model.

    Raises:
        StudentError: None is found.
    """
    # Architectures name their stack differently (`layer`, `layers`, `h`, ...); only the length is common to all.
    wanted = model.config.num_hidden_layers  # type: ignore[union-attr]
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == wanted]
    if not stacks:
        raise StudentError(
            f"{type(model).__name__}: found no stack of {wanted} layers to drop or to train.",
            "Leave out `keep_layers`, set `train_layers` to 0 or `all`, or name another model.",
        )
    # Outer modules come first, so the stack is found before a list of equal length inside one of its layers.
    return stacks[0]


def keep_layers(model: nn.Module, choose: Callable[[int], tuple[int, ...]]) -> None:
    """Drop every encoder layer that is not kept.

    Args:
        model: Of transformers; changed in place.
        choose: Gives the layers to keep, counting from 0, of a number of layers.

    Raises:
        StudentError: The model has no stack of layers, or too few.
    """
    config: Any = model.config
    stack = encoder_layers(model)
    available = len(stack)
    kept = choose(available)
    layers = [stack[i] for i in kept]
    # Refilled, not replaced: the attribute that holds the list has another name in each architecture.
    del stack[:]
    for position, layer in enumerate(layers):
        stack.append(layer)
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # decoders find their cache by it
                module.layer_idx = position  # type: ignore[assignment]
    # The saved configuration has to describe what is left, or loading would add layers with random weights.
    config.num_hidden_layers = len(kept)
    # Models that alternate local and global attention, say, have one entry per layer; a kept layer keeps its own.
    for key, value in list(vars(config).items()):
        if key.endswith(PER_LAYER) and isinstance(value, list | tuple) and len(value) == available:
            setattr(config, key, [value[i] for i in kept])
    _require_saved(model, stack, kept)


def _require_saved(model: nn.Module, stack: nn.ModuleList, kept: tuple[int, ...]) -> None:
    """Make sure that the configuration describes the layers that were kept: whoever loads the model makes those."""
    # Without data: only names and shapes are compared.
    with torch.device("meta"):
        described = encoder_layers(type(model)(copy.deepcopy(model.config)))
    now, then = (
        {name: tuple(tensor.shape) for name, tensor in layers.state_dict().items()} for layers in (stack, described)
    )
    if differing := sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)):
        raise StudentError(
            f"student.keep_layers {list(kept)}: layers of {type(model).__name__} are not all alike, and its "
            f"configuration cannot say that these are left: {differing[0]} would be "
            f"{'lost' if differing[0] in now else 'made anew, with random weights'} by saving.",
            "Keep layer 0." if kept[0] != 0 else "Keep other layers, or all of them.",
        )


def layer_parameters(student: DenseStudent) -> set[str]:
    """Names of all parameters of the student's encoder layers and heads: each of them decides vectors.

    A model has others that need not, e.g. BERT's pooler.
    """
    model = student.transformer
    try:
        parts = [encoder_layers(model), student.heads]
    except StudentError:  # layers that share their weights, as in ALBERT: the pooler is all that may be idle
        return {name for name, _ in student.named_parameters() if "pooler" not in name}
    owned = {id(parameter) for part in parts for parameter in part.parameters()}
    return {name for name, parameter in student.named_parameters() if id(parameter) in owned}


def train_only(student: DenseStudent, layers: TrainedLayers, heads: Iterable[str], *, embeddings: bool = True) -> None:
    """Let the last encoder layers, or all parameters of the encoder, and some heads train.

    Args:
        student: Changed in place.
        layers: How many of the last layers; `all` for the whole encoder.
        heads: Names.
        embeddings: Whether token embeddings train when all layers do.

    Raises:
        StudentError: The encoder has fewer layers.
    """
    # Everything is frozen first: a model that was just loaded takes gradients everywhere.
    student.requires_grad_(False)
    for name in heads:
        student.head(name).requires_grad_(True)  # a prefix head is the full head, which then trains
    if layers == "all":
        student.backbone.requires_grad_(True)
        if not embeddings:
            student.transformer.get_input_embeddings().requires_grad_(False)
    elif layers > 0:
        stack = encoder_layers(student.transformer)
        if layers > len(stack):
            raise StudentError(
                f"train_layers {layers}: the student has {len(stack)} layers.", "Lower it, or say `all`."
            )
        for layer in list(stack)[-layers:]:
            layer.requires_grad_(True)


def checkpoint_activations(student: DenseStudent) -> None:
    """Keep only the input of each encoder layer for the backward pass, and compute the rest again.

    Args:
        student: Changed in place.

    Raises:
        StudentError: The architecture does not support it.

    References:
        Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv 1604.06174.
    """
    if not student.transformer.supports_gradient_checkpointing:
        raise StudentError(
            f"gradient_checkpointing: {type(student.transformer).__name__} cannot compute activations again.",
            "Set it to false, and lower `micro_batch_size` to save memory.",
        )
    # The reentrant form gives no gradient where no input takes one, as with frozen embeddings.
    student.transformer.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": forward_again})
    for layer in encoder_layers(student.transformer):
        # transformers asks the layer whether it trains. Its dropouts are modules of their own, and stay off.
        layer.training = True
