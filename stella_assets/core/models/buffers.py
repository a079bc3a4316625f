"""Buffers that no checkpoint holds: they must be what the model's class computes.

transformers constructs a model without data and fills in what the checkpoint has. A buffer that `__init__` computes and
that is not saved, e.g. a table of rotary positions, then holds whatever was in memory, unless its class computes it
again; code that comes with a model rarely does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stella_assets.core.errors import UserError

FULL_CONSTRUCTION = 2 * 10**9
"""Parameters of the largest model that is constructed with all its data, where its class cannot do without."""


class UnknownBufferError(UserError):
    """A buffer whose value is not known."""


def restore_buffers(model: Any, arguments: Mapping[str, Any], missing: frozenset[str] = frozenset()) -> list[str]:
    """Give every buffer that is not saved the value that the class computes when it is constructed normally.

    Args:
        model: Of transformers, just loaded; changed in place.
        arguments: Of its class, in addition to the configuration.
        missing: Buffers that the checkpoint lacks although they are saved.

    Returns:
        Names of those that had another value.

    Raises:
        UnknownBufferError: The class does not compute them, or computes other values each time.
    """
    wanted = [name for name, _, _ in _computed(model, missing)]
    if not wanted:
        return []
    right = dict(_values(_construct(model, arguments), missing))
    if absent := [name for name in wanted if name not in right]:
        raise _unknown(model, absent[0], "it is not there when the class is constructed normally")
    changed = [name for name, _, value in _computed(model, missing) if not _same(value, right[name])]
    if not changed:
        return []
    again = dict(_values(_construct(model, arguments), missing))
    if random := [name for name in changed if not _same(right[name], again[name])]:
        raise _unknown(model, random[0], "the class computes another value each time")
    for name, module, value in list(_computed(model, missing)):
        if name in changed:
            # The model's own device: a value on no device tells none.
            device = model.device if value.is_meta else value.device
            setattr(module, name.rpartition(".")[2], right[name].to(device))
    return changed


def _computed(model: nn.Module, missing: frozenset[str]) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, module and value of all that no checkpoint gives: buffers, and tensors that are plain attributes."""
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, buffer in module.named_buffers(recurse=False):
            if name in module._non_persistent_buffers_set or start + name in missing:
                yield start + name, module, buffer
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield start + name, module, value


def _values(model: nn.Module, missing: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
    for name, _, value in _computed(model, missing):
        yield name, value


def _construct(model: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """The model as its class makes it: buffers with data, and parameters without where the class can do so.

    Raises:
        UnknownBufferError: It cannot, and the model is too large to be constructed twice.
    """
    from accelerate import init_empty_weights

    def make() -> nn.Module:
        with _default_dtype(model.dtype), torch.random.fork_rng(devices=[]):
            # Another seed each time, so that random values show.
            torch.random.seed()
            made: nn.Module = type(model)(model.config, **arguments)
        return made

    try:
        with init_empty_weights(include_buffers=False):
            return make()
    except RuntimeError as error:  # it reads a parameter, which has no data here
        if (size := sum(p.numel() for p in model.parameters())) > FULL_CONSTRUCTION:
            raise _unknown(
                model, "its buffers", f"the class needs its {size:,} weights to compute them ({error})"
            ) from None
        return make()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """As while a model is loaded: tables of positions may be cast to the default number format."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.is_meta or b.is_meta or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.cpu(), b.cpu())


def _unknown(model: Any, name: str, reason: str) -> UnknownBufferError:
    return UnknownBufferError(
        f"{model.config.name_or_path}: {name} of {type(model).__name__} is not in the checkpoint, and {reason}.",
        "Change the code that comes with the model, or save this buffer with the weights.",
    )
