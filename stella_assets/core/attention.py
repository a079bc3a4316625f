"""Forward passes in bfloat16 on a CPU, whose attention computes in float32.

torch's gradient of attention takes up to three times as long there in bfloat16 as in float32: on short texts a
quarter of a training step. Without torch's fused kernel attention is as fast on these, and two to three times slower on
512 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class Float32Attention(TorchFunctionMode):
    """Inside it, attention computes in float32, also under autocast, and gives the format that it was given."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch; see `TorchFunctionMode`."""
        del types
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        query = args[0] if args else kwargs["query"]
        # A cast is not enough: autocast would cast back.
        with torch.autocast("cpu", enabled=False):
            found = func(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})
        return found.to(query.dtype)


@contextmanager
def autocast_on_cpu() -> Iterator[None]:
    """A context for the forward pass: matrix products in bfloat16, but attention in float32."""
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Attention():
        yield


def forward_again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of a forward pass and of its repetition, for `torch.utils.checkpoint`, which repeats autocast alone."""
    return nullcontext(), Float32Attention() if torch.is_autocast_enabled("cpu") else nullcontext()


def _widen(value: Any) -> Any:
    """A tensor of any floating format in float32; anything else as it is."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
