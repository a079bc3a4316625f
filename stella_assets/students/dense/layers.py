"""Layers of an encoder: which are kept, which train, and what they keep in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from stella_assets.students.base import StudentError, TrainedLayers
from stella_assets.students.dense.model import DenseStudent


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
    kept = choose(len(stack))
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
    # Models that alternate local and global attention say so per layer; a kept layer keeps its own kind.
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in kept]


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


def prepare_training(student: DenseStudent) -> None:
    """Choose the attention whose gradient is faster: on a CPU that of the fused one is slower than the plain one's."""
    if student.device.type == "cpu" and student.transformer.config._attn_implementation == "sdpa":
        student.transformer.set_attn_implementation("eager")


def checkpoint_activations(student: DenseStudent) -> None:
    """Keep only the input of each encoder layer for the backward pass, and compute the rest again.

    Args:
        student: Changed in place.

    References:
        Chen et al. 2016, Training deep nets with sublinear memory cost, arXiv 1604.06174.
    """
    # The reentrant form gives no gradient where no input takes one, as with frozen embeddings.
    student.transformer.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in encoder_layers(student.transformer):
        # transformers asks the layer whether it trains. Its dropouts are modules of their own, and stay off.
        layer.training = True
