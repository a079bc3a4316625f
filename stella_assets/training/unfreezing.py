"""Progressive unfreezing: the layers of the encoder start to train one after another, the last one first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from stella_assets.students.base import TrainedLayers
from stella_assets.students.dense.layers import encoder_layers
from stella_assets.students.dense.model import DenseStudent


def unfreeze(
    student: DenseStudent, trained: Mapping[str, nn.Parameter], train_layers: TrainedLayers, done: int, over: float
) -> None:
    """Let those parameters take a gradient that train by now. Encoder parameters outside the layers start last.

    Args:
        student: With the parameters.
        trained: All parameters that the stage trains, by name.
        train_layers: Layers that the stage trains in the end.
        done: Steps that were made.
        over: Steps in which all layers start.

    References:
        Howard and Ruder 2018, ULMFiT, arXiv 1801.06146, section 3.3: gradual unfreezing.
    """
    stack = list(encoder_layers(student.transformer))
    joining = len(stack) if train_layers == "all" else train_layers
    # A function of the step alone, so that a resumed run needs no state. The last layer joins with the first step, and
    # one more than there are layers at the end: what is left of the encoder, e.g. the embeddings.
    joined = int(1 + joining * done / over)
    # By identity: names of layers differ by architecture.
    frozen = {id(p) for layer in stack[: max(0, len(stack) - joined)] for p in layer.parameters()}
    in_stack = {id(p) for layer in stack for p in layer.parameters()}
    for name, parameter in trained.items():
        in_encoder = not name.startswith("heads.")
        below = in_encoder and id(parameter) not in in_stack and joined <= len(stack)
        parameter.requires_grad_(id(parameter) not in frozen and not below)
